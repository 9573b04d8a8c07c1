"""Reading an answer: http.client's reader of bodies behind a lean reader of heads."""

from __future__ import annotations

import http.client
import io
import zlib
from typing import cast

from requests.structures import CaseInsensitiveDict

_LONGEST_LINE = 64 * 1024
_MOST_FIELDS = 100
_PIECE = 16 * 1024


class Answer(http.client.HTTPResponse):
    """An HTTPResponse that does not parse its headers as an e-mail, which costs as much as the rest of a call."""

    headers: CaseInsensitiveDict[str]  # type: ignore[assignment]

    def begin(self) -> None:
        """Read status line and headers. Raises HTTPException."""
        version, self.status, reason = self._read_status()  # type: ignore[attr-defined]
        self.code, self.reason = self.status, reason.strip()
        self.version = 10 if version in ("HTTP/1.0", "HTTP/0.9") else 11
        self.headers = read_fields(self.fp)
        coding = self.headers.get("Transfer-Encoding")
        self.chunked = coding is not None and coding.strip().lower() == "chunked"
        self.chunk_left = None
        self.will_close = self._check_close()  # type: ignore[attr-defined]
        self.length = self._announced_length() if coding is None else None
        if not self.will_close and not self.chunked and self.length is None:
            self.will_close = True  # the body ends where the connection does

    def _announced_length(self) -> int | None:
        if self.status in (204, 304) or self._method == "HEAD":  # type: ignore[attr-defined]
            return 0
        text = self.headers.get("Content-Length")
        if text is None:
            return None
        lengths = {part.strip() for part in text.split(",")}
        if len(lengths) != 1 or not (text := lengths.pop()).isdecimal() or not text.isascii():
            raise http.client.HTTPException("the Content-Length is not one number")
        return int(text)


def read_fields(stream: io.BufferedReader) -> CaseInsensitiveDict[str]:
    """Header lines up to the empty one; repeated fields are joined by commas. Raises HTTPException."""
    fields: CaseInsensitiveDict[str] = CaseInsensitiveDict()
    name = ""
    for _ in range(_MOST_FIELDS):
        line = stream.readline(_LONGEST_LINE + 1)
        if line in (b"\r\n", b"\n", b""):
            return fields
        if len(line) > _LONGEST_LINE:
            raise http.client.LineTooLong("header line")
        text = line.decode("iso-8859-1").rstrip("\r\n")
        if text[0] in " \t" and name:  # a folded line, obsolete but still met
            fields[name] += " " + text.strip()
            continue
        name, colon, value = text.partition(":")
        if not colon or not name or name != name.strip():
            raise http.client.HTTPException("a header line is malformed")
        value = value.strip()
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    raise http.client.HTTPException(f"more than {_MOST_FIELDS} headers")


def read_body(raw: Answer, limit: int) -> tuple[bytes, bool]:
    """The decoded body up to `limit` bytes, and whether there was more.

    Raises IncompleteRead when the connection ended before the announced length, zlib.error.
    """
    encoding = raw.headers.get("Content-Encoding", "").strip().lower()
    if encoding in ("gzip", "x-gzip", "deflate"):
        return _inflate(raw, limit)
    body = raw.read(limit + 1)
    if len(body) > limit:
        return body[:limit], True
    if raw.length:
        raise http.client.IncompleteRead(body, raw.length)
    return body, False


def _inflate(raw: Answer, limit: int) -> tuple[bytes, bool]:
    """Decoding stops at the limit: a bomb is never unfolded."""
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: gzip or zlib, whichever it is
    out = io.BytesIO()
    while piece := raw.read(_PIECE):
        out.write(inflater.decompress(piece, limit + 1 - out.tell()))
        if out.tell() > limit:
            return out.getvalue()[:limit], True
    if raw.length:
        raise http.client.IncompleteRead(b"", raw.length)
    if out.tell() and not inflater.eof:
        raise zlib.error("incomplete")
    return out.getvalue(), False


def let_go(raw: Answer) -> None:
    """Forget an interim answer without closing the stream it shares with the final one."""
    raw.fp = cast(io.BufferedReader, None)
