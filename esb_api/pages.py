"""Pages of lists: `{"items": […], "nextCursor": "…" | null}`, and the opaque cursor.

A cursor is the sort key of the last entry of a page, so that entries which come or go meanwhile neither
repeat nor hide others. It holds nothing secret and grants nothing: the filters are applied again.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID

import orjson

from esb_workers.errors import FieldError, Invalid
from esb_workers.registry.versions import Version, parse_version
from esb_workers.store.clients import KeyRow

Row = TypeVar("Row")
Item = TypeVar("Item")


def encode_cursor(*key: str | int) -> str:
    """The cursor for a page that ends at `key`."""
    return base64.urlsafe_b64encode(orjson.dumps(key)).rstrip(b"=").decode()


def decode_cursor(cursor: str | None, *kinds: type) -> tuple[Any, ...] | None:
    """The key in `cursor`, one value for each of `kinds` (str, int, UUID or Version; the last two answered as str).

    None for no cursor. Raises Invalid for a text that no page has answered with.
    """
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        values = orjson.loads(raw)
        if not isinstance(values, list) or len(values) != len(kinds):
            raise ValueError
        return tuple(_as(kind, value) for kind, value in zip(kinds, values, strict=True))
    except (ValueError, binascii.Error):
        raise Invalid([FieldError("cursor", "is not a cursor of this list")]) from None


def cursor_id(cursor: str | None) -> str | None:
    """The id in the cursor of a list that is sorted by id alone: the usual case, ids being UUIDv7."""
    key = decode_cursor(cursor, UUID)
    return None if key is None else str(key[0])


def page(rows: Sequence[Row], limit: int, item: Callable[[Row], Item], key: Callable[[Row], Any]) -> dict[str, Any]:
    """The page of `rows`, which hold one more than `limit` if there is a next page.

    `item` makes the entry of a row, `key` the sort key (an id, or a tuple) of the last row shown.
    """
    shown = rows[:limit]
    last = key(shown[-1]) if len(rows) > limit else None
    after = None if last is None else encode_cursor(*(last if isinstance(last, tuple) else (last,)))
    return {"items": [item(row) for row in shown], "next_cursor": after}


def page_of_all(
    rows: Sequence[Row],
    limit: int,
    after: tuple[Any, ...] | None,
    item: Callable[[Row], Item],
    key: Callable[[Row], tuple[Any, ...]],
    order: Callable[[tuple[Any, ...]], Any] = tuple,
) -> dict[str, Any]:
    """The page after the key `after`, of `rows`, which are all there are, sorted downwards by `order(key(row))`."""
    rest = [row for row in rows if after is None or order(key(row)) < order(after)]
    return page(rest[: limit + 1], limit, item, key)


def key_page(rows: Sequence[KeyRow], limit: int, cursor: str | None, item: Callable[[KeyRow], Item]) -> dict[str, Any]:
    """The page of a list of API keys, newest first: their ids are words of chance, so the time is in the cursor."""

    def key(row: KeyRow) -> tuple[int, str]:
        return round(row.created_at.timestamp() * 1_000_000), row.id

    rows = sorted(rows, key=key, reverse=True)
    return page_of_all(rows, limit, decode_cursor(cursor, int, str), item, key)


def _as(kind: type, value: Any) -> Any:
    if kind is UUID and isinstance(value, str):
        return str(UUID(value))
    if kind is int and isinstance(value, int) and abs(value) < 1 << 63:
        return value
    if kind is Version and isinstance(value, str):
        parse_version(value)
        return value
    if kind is str and isinstance(value, str) and "\0" not in value:
        return value
    raise ValueError
