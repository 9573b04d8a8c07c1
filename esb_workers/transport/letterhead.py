"""Requests that differ from one another in a few values only: their heads are written once, with slots for these. Pure.

What a letterhead says is what `transport.request.head` has made of it, so there is one place that knows how.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Final, NamedTuple

from esb_workers.transport import request as wire
from esb_workers.transport.request import Origin

#: Of a slot, in a process: nobody else writes this. It is of characters that no encoding touches.
_MARK: Final = secrets.token_hex(16)
_SLOT: Final = re.compile(rf"{_MARK}\.(\d+)\.")
#: What `head` says of a body of one byte.
_LENGTH: Final = "Content-Length: 1\r\n\r\n"


class Letter(NamedTuple):
    """A request as it goes over the wire."""

    origin: Origin
    method: str
    head: bytes
    body: bytes


def slot(number: int) -> str:
    """What stands in a header's value for the value of this number."""
    return f"{_MARK}.{number}."


class Letterhead:
    """The head of requests with a body, to one target, by one method."""

    def __init__(self, method: str, url: str, headers: Iterable[tuple[str, str]]) -> None:
        """`headers` with a slot at least. Raises RequestRefused."""
        self._method = method
        target = wire.parse_url(url)
        self._origin = target.origin
        text = wire.head(method, target, headers, b"-").decode("utf-8", "surrogatepass")
        # `%` and a tuple, since nothing puts values into a text faster.
        said, *others = _SLOT.split(text.removesuffix(_LENGTH).replace("%", "%%"))
        self._pick: Callable[[tuple[object, ...]], tuple[object, ...]]
        self._pick = itemgetter(*(int(number) for number in others[::2]), -1)
        self._text = "%s".join([said, *others[1::2]]) + _LENGTH.replace("1", "%s")

    def letter(self, values: Iterable[object], body: bytes) -> Letter:
        """With the values of the slots, which nobody looks at any more: they must not break out of their lines."""
        text = self._text % self._pick((*values, len(body)))
        return Letter(self._origin, self._method, text.encode("utf-8", "surrogatepass"), body)
