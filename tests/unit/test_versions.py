"""Semantic versions and npm's ranges. The tables agree with npm's own library (semver 7.8)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esb_workers.registry.versions import Version, highest, parse_range, parse_version, satisfies

#: In ascending precedence, by semver.org §11.
ASCENDING = [
    "0.0.1",
    "0.9.10",
    "1.0.0-0",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
] + ["1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.1", "1.2.0", "1.10.0", "2.0.0"]

numbers = st.integers(0, 12)
versions = st.builds(
    Version, numbers, numbers, numbers, st.one_of(st.just(()), st.just(("beta", 2)), st.just((0,)), st.just(("beta",)))
)


def text(version: Version) -> str:
    core = ".".join(map(str, version.core))
    return f"{core}-{'.'.join(map(str, version.prerelease))}" if version.prerelease else core


def test_precedence_is_that_of_semver() -> None:
    assert sorted(sorted(ASCENDING), key=parse_version) == ASCENDING


def test_build_metadata_counts_for_nothing() -> None:
    assert parse_version("1.2.3+a.b") == parse_version("1.2.3")


@pytest.mark.parametrize(
    "bad",
    ["", "1", "1.2", "1.2.3.4", "v1.2.3", "01.2.3", "1.2.3-01", "1.2.3-", "1.2.3-a..b", "1.2.3+", " 1.2.3", "١.2.3"],
)
def test_what_is_no_version_is_refused(bad: str) -> None:
    with pytest.raises(ValueError):
        parse_version(bad)


@given(versions)
def test_a_version_reads_back(version: Version) -> None:
    assert parse_version(text(version)) == version


@pytest.mark.parametrize(
    ("wanted", "inside", "outside"),
    [
        ("^1.2.3", "1.2.3 1.9.9", "1.2.2 2.0.0 2.0.0-0 1.2.4-beta"),
        ("^0.2.3", "0.2.3 0.2.9", "0.3.0 0.2.2"),
        ("^0.0.3", "0.0.3", "0.0.4 0.0.2"),
        ("^1.2.3-beta.2", "1.2.3-beta.4 1.2.3 1.8.0", "1.2.4-beta.2 1.2.3-beta.1"),
        ("^0.0", "0.0.0 0.0.9", "0.1.0"),
        ("^0.x", "0.0.0 0.9.0", "1.0.0"),
        ("^1", "1.0.0 1.9.0", "0.9.9 2.0.0"),
        ("~1.2.3", "1.2.3 1.2.9", "1.3.0 1.2.2"),
        ("~1.2", "1.2.0 1.2.9", "1.3.0"),
        ("~1", "1.0.0 1.9.0", "2.0.0"),
        ("~> 1.2", "1.2.0", "1.3.0"),
        ("1.2.x", "1.2.0 1.2.9", "1.3.0"),
        ("1.X", "1.0.0 1.9.9", "2.0.0"),
        ("1", "1.0.0 1.9.9", "2.0.0"),
        ("*", "0.0.0 9.9.9", "1.0.0-beta"),
        ("", "0.0.0 9.9.9", "1.0.0-beta"),
        ("1.2.3", "1.2.3 1.2.3+build", "1.2.4"),
        ("=v1.2.3", "1.2.3", "1.2.4"),
        ("1.2.3 - 2.3.4", "1.2.3 2.3.4", "1.2.2 2.3.5"),
        ("1.2 - 2.3.4", "1.2.0", "1.1.9"),
        ("1.2.3 - 2.3", "2.3.9", "2.4.0 2.4.0-0"),
        ("1.2.3 - 2", "2.9.9", "3.0.0"),
        (">=1.2.7 <1.3.0", "1.2.7 1.2.99", "1.2.6 1.3.0"),
        ("1.2.7 || >=1.2.9 <2.0.0", "1.2.7 1.2.9 1.4.6", "1.2.8 2.0.0"),
        ("> 1.2", "1.3.0", "1.2.9"),
        (">1", "2.0.0", "1.9.9"),
        ("<=1.2", "1.2.9", "1.3.0"),
        ("<1.2", "1.1.9", "1.2.0 1.2.0-beta"),
        (">1.2.3-alpha.3", "1.2.3-alpha.7 1.2.3 3.4.5", "3.4.5-alpha.9 1.2.3-alpha.3"),
        ("<0.0.0", "", "0.0.0"),
        (">*", "", "0.0.0 9.9.9"),
        ("||", "1.0.0", ""),
    ],
)
def test_ranges_mean_what_they_mean_to_npm(wanted: str, inside: str, outside: str) -> None:
    assert [v for v in inside.split() if not satisfies(v, wanted)] == []
    assert [v for v in outside.split() if satisfies(v, wanted)] == []


@pytest.mark.parametrize(
    "bad", ["latest", "a.b.c", "1.2.3.4", "1.2.3,2", "=>1.2.3", "01.2.3", "1.2.3 -", "1.*.0", ">==1", "1" * 300]
)
def test_what_is_no_range_is_refused(bad: str) -> None:
    with pytest.raises(ValueError):
        parse_range(bad)


@given(versions, versions)
def test_a_caret_never_leaves_the_leftmost_number_that_is_not_zero(low: Version, version: Version) -> None:
    if parse_range("^" + text(low)).contains(version):
        assert version >= low
        assert version.major == low.major
        assert low.major or version.minor == low.minor
        assert low.major or low.minor or version.patch == low.patch


@given(versions, versions)
def test_a_prerelease_is_only_in_a_range_that_names_one_of_the_same_release(low: Version, version: Version) -> None:
    if version.prerelease and parse_range(f">={text(low)}").contains(version):
        assert low.prerelease
        assert low.core == version.core


def test_the_highest_is_no_prerelease_unless_the_range_names_one() -> None:
    there = ["1.0.0", "1.10.0", "1.9.0", "2.0.0-rc.1"]
    assert highest(there) == "1.10.0"
    assert highest(there, "^1.0.0 <1.10") == "1.9.0"
    assert highest(there, "^2.0.0-rc.0") == "2.0.0-rc.1"
    assert highest(there, "^3") is None
