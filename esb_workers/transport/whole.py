"""An answer that has come whole, taken apart at once. Pure.

That is how nearly every call ends, and to read it as a stream costs several times as much. Whatever is not plain here
(chunks, codings, folded or repeated fields, a status without a body) is left to that stream.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from requests.structures import CaseInsensitiveDict

_MOST_FIELDS = 100
_LONGEST_HEAD = 16 * 1024
_LONGEST_KNOWN = 1024
_NOT_PLAIN = frozenset({"transfer-encoding", "content-encoding", "trailer"})
_BODILESS = frozenset({204, 205, 304})


class Whole(NamedTuple):
    """A complete answer. `will_close`: the peer keeps the connection no longer."""

    status: int
    reason: str
    headers: CaseInsensitiveDict[str]
    body: bytes
    will_close: bool


class _Head(NamedTuple):
    status: int
    reason: str
    headers: CaseInsensitiveDict[str]
    length: int
    will_close: bool


def whole(data: bytes, method: str, limit: int) -> tuple[Whole | None, bool]:
    """The one answer that `data` is, its body no longer than `limit`; else None, and whether it may be the beginning of
    one. If it may not, it is for the stream. Its headers may be shared with other answers: they are only to be read.
    """
    if method == "HEAD" or not data.startswith(b"HTTP/1.1 "):
        return None, False
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None, len(data) < _LONGEST_HEAD
    head = _known_head(data[:end]) if end < _LONGEST_KNOWN else _head(data[:end])
    if head is None or head.length > limit:
        return None, False
    come = len(data) - end - 4
    if come != head.length:
        return None, come < head.length
    return Whole(head.status, head.reason, head.headers, data[end + 4 :], head.will_close), False


def _head(data: bytes) -> _Head | None:
    status_line, *lines = data.decode("iso-8859-1").split("\r\n")
    status, headers = _status(status_line), _fields(lines)
    if status is None or headers is None:
        return None
    text = headers.get("Content-Length", "")
    if not (text.isascii() and text.isdecimal()) or len(text) > 9:
        return None
    will_close = "close" in headers.get("Connection", "").lower()
    return _Head(status, status_line[13:].strip(), headers, int(text), will_close)


#: Receivers answer in the same few words, within a second even where they tell the time.
_known_head = lru_cache(maxsize=512)(_head)


def _status(line: str) -> int | None:
    code = line[9:12]
    if not (code.isascii() and code.isdecimal()) or line[12:13] not in ("", " ") or "\n" in line:
        return None
    status = int(code)
    return status if 200 <= status < 600 and status not in _BODILESS else None


def _fields(lines: list[str]) -> CaseInsensitiveDict[str] | None:
    if len(lines) > _MOST_FIELDS - 1:  # the empty line that ends them counts
        return None
    fields: CaseInsensitiveDict[str] = CaseInsensitiveDict()
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip() or "\n" in line or name.lower() in _NOT_PLAIN:
            return None
        fields[name] = value.strip()
    return fields if len(fields) == len(lines) else None
