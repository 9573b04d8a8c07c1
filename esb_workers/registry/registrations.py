"""What the changes of all registrations have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from esb_workers.errors import Conflict, NotFound
from esb_workers.store.engine import is_unique_violation

Row = TypeVar("Row")


def found(row: Row | None) -> Row:
    """The row. Raises NotFound for none."""
    if row is None:
        raise NotFound
    return row


@contextmanager
def unique(constraint: str, detail: str, code: str = "name_taken") -> Iterator[None]:
    """Raises Conflict, of this detail and code, for a row that breaks this unique index."""
    try:
        yield
    except Exception as error:
        if is_unique_violation(error, constraint):
            raise Conflict(detail, code=code) from None
        raise
