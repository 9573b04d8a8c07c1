"""The small forms of HTTP: ETags, cursors, merge patches, preferences, field paths."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from esb_api.etag import check_if_match, etag_of
from esb_api.pages import cursor_id, decode_cursor, encode_cursor, page
from esb_api.patches import merge_patch
from esb_api.schemas.services import ServiceBody
from esb_api.validation import dotted, field_errors, validated
from esb_api.waiting import Waiting, wanted_wait
from esb_workers.errors import Invalid, PreconditionFailed
from esb_workers.store.ids import new_id


@pytest.mark.parametrize("header", [None, "*", '"3"', '"1", "3"', '"x" , "3"'])
def test_a_matching_if_match_lets_the_change_through(header: str | None) -> None:
    check_if_match(header, 3)


@pytest.mark.parametrize("header", ["", '"2"', 'W/"3"', '"1", "2"', '"', "\x80"])
def test_any_other_if_match_stops_it(header: str) -> None:
    with pytest.raises(PreconditionFailed):
        check_if_match(header, 3)
    assert etag_of(3) == '"3"'


# RFC 7386, appendix A
@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_follows_its_rfc(target: Any, patch: Any, result: Any) -> None:
    before = repr(target)
    assert merge_patch(target, patch) == result
    assert repr(target) == before


@given(st.text(max_size=30))
def test_a_cursor_is_one_of_ours_or_refused(text: str) -> None:
    try:
        key = decode_cursor(text, str, int)
    except Invalid as error:
        assert [fault.path for fault in error.errors] == ["cursor"]
    else:
        assert key is not None
        assert len(key) == 2


def test_a_page_ends_with_the_key_of_its_last_entry() -> None:
    ids = [new_id() for _ in range(4)]
    first = page(ids, 3, str.upper, lambda row: row)
    assert first["items"] == [id_.upper() for id_ in ids[:3]]
    assert cursor_id(first["next_cursor"]) == ids[2]
    assert page(ids[:3], 3, str.upper, lambda row: row)["next_cursor"] is None
    assert decode_cursor(encode_cursor("a", 5), str, int) == ("a", 5)
    with pytest.raises(Invalid):
        decode_cursor(encode_cursor("a", "5"), str, int)
    assert cursor_id(None) is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None), ("", None), ("wait=5", 5), ("wait=0", 0), ("wait=31", 30), ("wait=999999999", 30), ("WAIT = 7", 7),
        ("respond-async, wait=3", 3), ("wait=3; foo, bar", 3), ('wait="4"', 4), ("wait=x", None), ("wait=-1", None),
        ("await=5", None), ("wait=5x", None),
    ],
)  # fmt: skip
def test_only_a_wait_preference_is_heard(header: str | None, seconds: int | None) -> None:
    assert wanted_wait(header) == seconds


def test_places_for_waiting_are_limited_and_come_back() -> None:
    waiting = Waiting(2)
    with waiting.place() as first, waiting.place() as second:
        with waiting.place() as third:
            assert (first, second, third) == (True, True, False)
    with waiting.place() as again:
        assert again
    with Waiting(0).place() as none:
        assert not none


def test_paths_are_dotted_with_indexes() -> None:
    assert dotted(("steps", 2, "config")) == "steps[2].config"
    assert dotted(()) == ""
    assert dotted((0, "a")) == "[0].a"


class _Named(BaseModel):
    service: str


class _Route(BaseModel):
    to: list[str | _Named]


def test_the_branches_of_a_union_do_not_show_in_the_path() -> None:
    value = {"to": ["a", {"service": 1}, {}]}
    with pytest.raises(ValidationError) as error:
        _Route.model_validate(value, strict=True)
    assert {fault.path for fault in field_errors(error.value, value)} == {
        "to[1]",
        "to[1].service",
        "to[2]",
        "to[2].service",
    }


def test_messages_speak_of_the_callers_fields() -> None:
    with pytest.raises(Invalid) as error:
        validated(ServiceBody, {"name": "a", "healthCheck": {"url": "http://x", "interval": "1"}, "extra": 1})
    assert {(fault.path, fault.message) for fault in error.value.errors} == {
        ("version", "is required"),
        ("endpoint", "is required"),
        ("healthCheck.interval", "should be a valid integer"),
        ("extra", "is not a field of this object"),
    }
