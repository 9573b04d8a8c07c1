"""How long what has ended waits to be recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from esb_workers.runtime import completer as completers
from esb_workers.runtime.completer import FLUSH_COUNT, Completer, Result

LONG = 30.0


class Book:
    """What was recorded, statement by statement."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.flowing = True
        self.made = Completer("completer", self._record, lambda claims, lost=False: None, lambda: self.flowing, len)

    def _record(self, worker: int, records: list[Any]) -> None:
        self.batches.append(records)

    def put(self, *names: Any, patient: bool = True) -> None:
        for name in names:
            self.made.put(Result(1, SimpleNamespace(id=name), name, patient))  # type: ignore[arg-type]


@pytest.fixture
def book(monkeypatch: pytest.MonkeyPatch) -> Iterator[Book]:
    """In a steady flow, in which what nobody waits for waits longer than any test."""
    monkeypatch.setattr(completers, "FLUSH_LATEST", LONG)
    book = Book()
    book.made.start()
    yield book
    book.made.end()


def test_in_a_steady_flow_what_nobody_waits_for_waits_for_more(book: Book, eventually: Callable[..., None]) -> None:
    book.put("a", "b")
    book.put("c", patient=False)
    eventually(lambda: book.batches == [["a", "b", "c"]])


def test_what_somebody_waits_for_is_recorded_at_once(book: Book, eventually: Callable[..., None]) -> None:
    book.put("a", patient=False)
    eventually(lambda: book.batches == [["a"]])


def test_where_nothing_follows_nobody_waits_for_it(book: Book, eventually: Callable[..., None]) -> None:
    book.flowing = False
    book.put("a")
    eventually(lambda: book.batches == [["a"]])


def test_where_there_is_enough_for_a_statement_nothing_waits_for_more(
    book: Book, eventually: Callable[..., None]
) -> None:
    book.put(*range(3 * FLUSH_COUNT))
    eventually(lambda: len(book.batches) >= 2)
    book.put("last", patient=False)
    eventually(lambda: sum(map(len, book.batches)) == 3 * FLUSH_COUNT + 1)
    assert max(map(len, book.batches)) == FLUSH_COUNT


def test_at_the_end_what_was_put_before_is_recorded(eventually: Callable[..., None], book: Book) -> None:
    book.put("a", "b")
    book.made.end()
    eventually(lambda: book.batches == [["a", "b"]])
