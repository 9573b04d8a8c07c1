"""What a run takes from a service's answer."""

from __future__ import annotations

from typing import Any

import pytest

from esb_workers.orchestration.failures import catches
from esb_workers.orchestration.services import Bulkhead, value_of


@pytest.mark.parametrize(
    ("body", "content_type", "value"),
    [
        (b"", "application/json", None),
        (b'{"a": 1}', "application/json; charset=utf-8", {"a": 1}),
        (b'{"a": 1}', "text/html", {"a": 1}),
        (b"12", None, 12),
        (b"12", "text/plain", "12"),
        (b"not json", "application/json", "not json"),
        (b'{"a": NaN}', "application/json", '{"a": NaN}'),
        (b'"a\\u0000b"', "application/json", "a\ufffdb"),
        (b"\xff\x00", "application/octet-stream", "\ufffd\ufffd"),
        (b"[" * 70 + b"]" * 70, "application/json", "[" * 70 + "]" * 70),
        (b"123456789012345678901234567890", "application/json", 1.2345678901234568e29),
    ],
)
def test_an_answer_is_json_or_text(body: bytes, content_type: str | None, value: Any) -> None:
    assert value_of(body, content_type) == value


def test_a_service_takes_its_share_of_a_process_and_no_more() -> None:
    bulkhead = Bulkhead(2)
    with (
        bulkhead.place("a") as one,
        bulkhead.place("a") as two,
        bulkhead.place("a") as three,
        bulkhead.place("b") as other,
    ):
        assert (one, two, three, other) == (True, True, False, True)
    with bulkhead.place("a") as again:
        assert again


@pytest.mark.parametrize(
    ("wanted", "error_class", "taken"),
    [
        (("*",), "Anything", True),
        (("Timeout",), "Timeout", True),
        (("Timeout",), "ServiceUnavailable", False),
        (("HttpStatus.4xx",), "HttpStatus.409", True),
        (("HttpStatus.4xx",), "HttpStatus.503", False),
        (("HttpStatus.409",), "HttpStatus.409", True),
        (("HttpStatus.40",), "HttpStatus.409", False),
    ],
)
def test_a_catch_names_classes_groups_or_all(wanted: tuple[str, ...], error_class: str, taken: bool) -> None:
    assert catches(wanted, error_class) is taken
