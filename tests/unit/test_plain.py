"""Requests of the plainest form: what is read without gunicorn, and that it is read as gunicorn would."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from flask import Response
from gunicorn.config import Config
from gunicorn.http import get_parser, wsgi
from hypothesis import given
from hypothesis import strategies as st

from esb_api.plain import MOST, environment, read_plain, written

PATHS = frozenset((b"/send",))
CLIENT, SERVER = ("127.0.0.1", 50_000), ("127.0.0.1", 8080)
BASE = environment(CLIENT, SERVER)


def request(
    body: bytes = b"{}", *headers: str, path: str = "/send", method: str = "POST", length: str | None = None
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: bus", f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*lines, *headers]).encode() + b"\r\n\r\n" + body


def by_gunicorn(data: bytes) -> dict[str, Any]:
    """The environment gunicorn makes of the same bytes, its own entries apart."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        asked = next(get_parser(Config(), ours, CLIENT))
        _, environ = wsgi.create(asked, ours, CLIENT, SERVER, Config())
        environ["wsgi.input"] = asked.body.read()
    own = ("gunicorn.socket", "wsgi.errors", "wsgi.file_wrapper", "wsgi.early_hints", "SERVER_SOFTWARE")
    return {name: value for name, value in environ.items() if name not in (*own, "HTTP_CONTENT_LENGTH")}


@pytest.mark.parametrize(
    "data",
    [
        request(),
        request(b""),
        request(b"[1]", "Content-Type: application/json; charset=utf-8", "X-API-Key:k", "x-odd: a:b \t"),
        request() + request(),
        request() + b"POST /se",
        request(b"{}", "X-Prefer: wait=3", "Empty:"),
        request(b"x" * 10_000),
    ],
)
def test_a_plain_request_is_read_as_gunicorn_reads_it(data: bytes) -> None:
    found = read_plain(data, PATHS, BASE)
    assert found is not None
    ours = found.environ | {"wsgi.input": found.environ["wsgi.input"].read()}
    theirs = by_gunicorn(data)
    told = {"wsgi.multithread", "wsgi.multiprocess"}  # set later, by the worker
    assert {k: v for k, v in ours.items() if k not in told} == {k: v for k, v in theirs.items() if k not in told}
    assert set(ours) == set(theirs)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        request(path="/other"),
        request(path="/send?x=1"),
        request(path="/send/"),
        request(path="/s%65nd"),
        request(path="http://bus/send"),
        request(method="GET"),
        request(method="post"),
        request()[:-1],
        request()[:20],
        b" " + request(),
        b"\r\n" + request(),
        request(b"{}", "Prefer: wait=3"),
        request(b"{}", "IDEMPOTENCY-KEY: 7"),
        request(b"{}", "Expect: 100-continue"),
        request(b"{}", "Transfer-Encoding: chunked"),
        request(b"{}", "Connection: close"),
        request(b"{}", "Upgrade: h2c"),
        request(b"[]", "Content-Type: application/cloudevents-batch+json"),
        request(b"{}", "Content-Length: 2"),
        request(b"{}", "X-API-Key: 1", "x-api-key: 2"),
        request(b"{}", "X_API_Key: 1"),
        request(b"{}", "Prefer : wait=3"),
        request(b"{}", " folded: 1"),
        request(b"{}", "Name: caf\u00e9"),
        request(b"{}", "Name: a\x00b"),
        request(b"{}", "Name: a\nb: c"),
        request(b"{}", "no colon"),
        request(b"{}", ": no name"),
        request(b"{}", *(f"h{n}: 1" for n in range(100))),
        request(b"{}", length="+2"),
        request(b"{}", length="-1"),
        request(b"{}", length="2, 2"),
        request(b"{}", length="0x2"),
        request(b"{}", length=""),
        request(b"{}", length="\u0662"),
        request(b"x" * MOST),
        request().replace(b"HTTP/1.1", b"HTTP/1.0"),
        request().replace(b"\r\n", b"\n"),
        request().replace(b"Host: bus\r\n", b""),
    ],
)
def test_whatever_deviates_from_the_plainest_form_is_left_to_gunicorn(data: bytes) -> None:
    assert read_plain(data, PATHS, BASE) is None


@given(st.binary(max_size=200), st.integers(0, 300))
def test_a_request_is_read_only_when_its_last_byte_has_come(body: bytes, cut: int) -> None:
    whole = request(body)
    assert (read_plain(whole[: len(whole) - cut], PATHS, BASE) is not None) is (cut == 0)


@given(st.binary(max_size=40), st.integers(0, 80), st.binary(min_size=1, max_size=4))
def test_what_is_read_of_damaged_bytes_gunicorn_reads_alike(body: bytes, place: int, damage: bytes) -> None:
    whole = request(body, "X-A: 1", "Content-Type: a/b")
    damaged = whole[:place] + damage + whole[place + len(damage) :]
    found = read_plain(damaged, PATHS, BASE)
    if found is not None:
        theirs = by_gunicorn(damaged)
        assert theirs["wsgi.input"] == found.environ["wsgi.input"].read()
        assert {k: v for k, v in theirs.items() if k.startswith("HTTP_")} == {
            k: v for k, v in found.environ.items() if k.startswith("HTTP_")
        }


def test_an_answer_is_framed_by_its_length() -> None:
    response = Response(b"{}", 202, {"X-Request-ID": "7"}, content_type="application/json")
    head, _, body = written(response, keep=True).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 202 ACCEPTED"
    assert {"Content-Length: 2", "Connection: keep-alive", "X-Request-ID: 7", "Content-Type: application/json"} <= {
        *lines
    }
    assert [line.partition(":")[0] for line in lines].count("Content-Length") == 1
    assert body == b"{}"
    assert b"Connection: close" in written(response, keep=False)
