"""Versions by SemVer 2.0.0 and ranges by npm's grammar.

https://semver.org · https://github.com/npm/node-semver#ranges. Build metadata takes no part in comparisons.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, total_ordering

_NUMBER = r"0|[1-9][0-9]*"
_IDENTIFIER = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_PRERELEASE = rf"(?P<pre>{_IDENTIFIER}(?:\.{_IDENTIFIER})*)"
_BUILD = r"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
_VERSION = re.compile(rf"({_NUMBER})\.({_NUMBER})\.({_NUMBER})(?:-{_PRERELEASE})?{_BUILD}", re.ASCII)
_X = rf"{_NUMBER}|[xX*]"
_PARTIAL = rf"[v=]?({_X})(?:\.({_X})(?:\.({_X})(?:-?{_PRERELEASE})?{_BUILD})?)?"
_PARTIAL_RE = re.compile(_PARTIAL, re.ASCII)
_HYPHEN = re.compile(r"\s*(\S+)\s+-\s+(\S+)\s*")
_OPERATOR_GAP = re.compile(r"(>=|<=|[<>=^]|~>?)\s+")
_TERM = re.compile(r"(>=|<=|>|<|=|\^|~>|~)?(.*)", re.DOTALL)
_LONGEST = 256


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """A version that can be compared. Equal means of equal precedence."""

    major: int
    minor: int
    patch: int
    prerelease: tuple[int | str, ...] = ()

    @property
    def core(self) -> tuple[int, int, int]:
        """Without the prerelease."""
        return self.major, self.minor, self.patch

    def __lt__(self, other: Version) -> bool:
        return self._key() < other._key()

    def _key(self) -> tuple[object, ...]:
        # A release is above its prereleases; numbers are below words; fewer words are below more.
        words = tuple((0, word, "") if isinstance(word, int) else (1, 0, word) for word in self.prerelease)
        return self.major, self.minor, self.patch, not self.prerelease, words


@lru_cache(maxsize=4096)
def parse_version(text: str) -> Version:
    """Raises ValueError for what is no SemVer version."""
    match = _VERSION.fullmatch(text) if len(text) <= _LONGEST else None
    if not match:
        raise ValueError("must be a semantic version such as 1.2.3")
    return Version(int(match[1]), int(match[2]), int(match[3]), _words(match["pre"]))


def _words(text: str | None) -> tuple[int | str, ...]:
    return tuple(int(word) if word.isdecimal() else word for word in text.split(".")) if text else ()


@dataclass(frozen=True, slots=True)
class Comparator:
    """One bound: `<`, `<=`, `=`, `>=` or `>` a version."""

    operator: str
    version: Version

    def holds(self, version: Version) -> bool:
        """Whether `version` is within this bound."""
        match self.operator:
            case "<":
                return version < self.version
            case "<=":
                return version <= self.version
            case ">":
                return version > self.version
            case ">=":
                return version >= self.version
            case _:
                return version == self.version


@dataclass(frozen=True, slots=True)
class Range:
    """Alternatives, each a set of bounds of which all must hold. An empty set is any release."""

    alternatives: tuple[tuple[Comparator, ...], ...]

    def contains(self, version: Version) -> bool:
        """Whether `version` is in the range.

        A prerelease is so only where a bound names a prerelease of the same major.minor.patch.
        """
        return any(_meets(version, bounds) for bounds in self.alternatives)


def _meets(version: Version, bounds: tuple[Comparator, ...]) -> bool:
    if not all(bound.holds(version) for bound in bounds):
        return False
    if not version.prerelease:
        return True
    return any(bound.version.prerelease and bound.version.core == version.core for bound in bounds)


@lru_cache(maxsize=4096)
def parse_range(text: str) -> Range:
    """Raises ValueError for what is no range."""
    if len(text) > _LONGEST:
        raise ValueError(f"must be at most {_LONGEST} characters")
    return Range(tuple(tuple(_alternative(part)) for part in text.split("||")))


def satisfies(version: str, range_text: str) -> bool:
    """Whether a version is in a range. Raises ValueError when either cannot be read."""
    return parse_range(range_text).contains(parse_version(version))


def highest(versions: list[str], range_text: str = "*") -> str | None:
    """The highest of `versions` in the range; without a range the highest that is no prerelease."""
    wanted = parse_range(range_text)
    fitting = [version for version in versions if wanted.contains(parse_version(version))]
    return max(fitting, key=parse_version, default=None)


_Partial = tuple[int | None, int | None, int | None, tuple[int | str, ...]]


def _alternative(text: str) -> Iterator[Comparator]:
    hyphen = _HYPHEN.fullmatch(text)
    if hyphen:
        yield from _lower(_partial(hyphen[1]))
        yield from _at_most(_partial(hyphen[2]))
        return
    for term in _OPERATOR_GAP.sub(r"\1", text).split():
        match = _TERM.fullmatch(term)
        assert match is not None
        operator = match[1] or "="
        yield from _bounds(operator, _partial(match[2], strict=operator[0] not in "^~"))


def _partial(text: str, strict: bool = False) -> _Partial:
    match = _PARTIAL_RE.fullmatch(text)
    if text == "":  # an operator alone stands before "any version"
        return None, None, None, ()
    if not match:
        raise ValueError(f"{text[:50]!r} is not a version or a part of one")
    major, minor, patch = (None if part in (None, "x", "X", "*") else int(part) for part in match.group(1, 2, 3))
    gap = (major is None and minor is not None) or (minor is None and patch is not None)
    if strict and (gap or text.startswith("=")):
        raise ValueError(f"{text[:50]!r} is not a version or a part of one")
    if major is None or minor is None:
        return major, None, None, ()  # what follows an x counts as x
    return major, minor, patch, _words(match["pre"]) if patch is not None else ()


def _bounds(operator: str, partial: _Partial) -> Iterator[Comparator]:
    match operator:
        case "^":
            yield from _between(partial, _caret_end(partial))
        case "~" | "~>":
            yield from _between(partial, _tilde_end(partial))
        case "=":
            yield from _equal(partial)
        case ">=":
            yield from _lower(partial)
        case "<=":
            yield from _at_most(partial)
        case ">":
            yield from _above(partial)
        case _:
            yield from _below(partial)


def _floor(partial: _Partial) -> Version:
    major, minor, patch, words = partial
    return Version(major or 0, minor or 0, patch or 0, words)


def _before(major: int, minor: int, patch: int) -> Comparator:
    # `-0` is the lowest prerelease there is: below 2.0.0 must not mean 2.0.0-alpha.
    return Comparator("<", Version(major, minor, patch, (0,)))


_NOTHING = Comparator("<", Version(0, 0, 0, (0,)))


def _between(partial: _Partial, end: Comparator | None) -> Iterator[Comparator]:
    if end is not None:
        yield Comparator(">=", _floor(partial))
        yield end


def _caret_end(partial: _Partial) -> Comparator | None:
    major, minor, patch, _ = partial
    if major is None:
        return None
    if major > 0 or minor is None:
        return _before(major + 1, 0, 0)
    if minor > 0 or patch is None:
        return _before(0, minor + 1, 0)
    return _before(0, 0, patch + 1)


def _tilde_end(partial: _Partial) -> Comparator | None:
    major, minor, _, _ = partial
    if major is None:
        return None
    return _before(major + 1, 0, 0) if minor is None else _before(major, minor + 1, 0)


def _equal(partial: _Partial) -> Iterator[Comparator]:
    if partial[2] is not None:
        yield Comparator("=", _floor(partial))
    else:
        yield from _between(partial, _tilde_end(partial))


def _lower(partial: _Partial) -> Iterator[Comparator]:
    if partial[0] is not None:
        yield Comparator(">=", _floor(partial))


def _at_most(partial: _Partial) -> Iterator[Comparator]:
    if partial[2] is not None:
        yield Comparator("<=", _floor(partial))
    elif (end := _tilde_end(partial)) is not None:
        yield end


def _above(partial: _Partial) -> Iterator[Comparator]:
    major, minor, patch, _ = partial
    if major is None:
        yield _NOTHING
    elif patch is not None:
        yield Comparator(">", _floor(partial))
    elif minor is None:
        yield Comparator(">=", Version(major + 1, 0, 0))
    else:
        yield Comparator(">=", Version(major, minor + 1, 0))


def _below(partial: _Partial) -> Iterator[Comparator]:
    major, minor, patch, _ = partial
    if major is None:
        yield _NOTHING
    elif patch is not None:
        yield Comparator("<", _floor(partial))
    else:
        yield _before(major, minor or 0, 0)
