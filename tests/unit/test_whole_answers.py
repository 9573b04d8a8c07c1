"""Answers that come whole are taken apart as the stream would have read them, or left to it."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esb_workers.transport.answer import Answer, read_body
from esb_workers.transport.whole import whole

LIMIT = 100


def test_a_plain_answer_is_taken() -> None:
    found, _ = whole(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nX-A:  b \r\n\r\n{}", "POST", LIMIT)
    assert found is not None
    assert (found.status, found.reason, found.body, found.will_close) == (201, "Created", b"{}", False)
    assert dict(found.headers) == {"Content-Length": "2", "X-A": "b"}
    assert found.headers["x-a"] == "b"


def test_an_answer_that_ends_its_connection_says_so() -> None:
    found, _ = whole(b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n", "GET", LIMIT)
    assert found is not None and found.will_close


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK",
        b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n" + b"x" * 101,
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: a\nY: b\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nnothing\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: a\r\n" % n for n in range(100)) + b"Content-Length: 2\r\n\r\n{}",
    ],
)
def test_what_is_not_plain_is_left_to_the_stream(data: bytes) -> None:
    assert whole(data, "POST", LIMIT) == (None, False)


def test_an_answer_to_head_has_no_body_whatever_it_announces() -> None:
    assert whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "HEAD", LIMIT) == (None, False)


def test_every_beginning_of_a_plain_answer_may_become_one() -> None:
    data = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 2\r\n\r\n{}"
    assert all(whole(data[:n], "POST", LIMIT) == (None, True) for n in range(9, len(data)))


def test_a_head_without_end_is_left_to_the_stream_which_bounds_it() -> None:
    assert whole(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 20_000, "POST", LIMIT) == (None, False)


_names = st.sampled_from(["X-A", "x-b", "Retry-After", "Connection", "Server", "Date"])
_values = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f\x85\xa0"), max_size=20)


@given(st.integers(200, 599), st.dictionaries(_names, _values, max_size=5), st.binary(max_size=40))
def test_it_reads_as_the_stream_does(status: int, fields: dict[str, str], body: bytes) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode("iso-8859-1")
    data = b"HTTP/1.1 %d Some reason\r\n%sContent-Length: %d\r\n\r\n%s" % (status, lines, len(body), body)
    found, _ = whole(data, "POST", LIMIT)
    if found is None:
        return
    answer = Answer(_Socket(data), method="POST")  # type: ignore[arg-type]
    answer.begin()
    assert (found.status, found.reason) == (answer.status, answer.reason)
    assert dict(found.headers) == dict(answer.headers)
    assert bool(found.will_close) == bool(answer.will_close)
    assert (found.body, False) == read_body(answer, LIMIT)


class _Socket:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)
