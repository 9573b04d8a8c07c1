"""What the tables of registrations have in common: rows with an id, a name, and a version of what people wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, Table, delete, func, insert, select, true, update

from esb_workers.store.ids import new_id

Row = TypeVar("Row")


class Registrations(Generic[Row]):
    """The rows of `table` as `row`, which takes its columns in order; `living` leaves out those that are gone."""

    def __init__(self, table: Table, row: Callable[..., Row], living: ColumnElement[bool] | None = None) -> None:
        self._table = table
        self._row = row
        self._living = true() if living is None else living

    def add(self, connection: Connection, values: Mapping[str, Any]) -> Row:
        """A new row. A name that is taken violates the unique index on it."""
        statement = insert(self._table).values(id=new_id(), **values).returning(*self._table.c)
        return self._row(*connection.execute(statement).one())

    def get(self, connection: Connection, row_id: str, *, lock: bool = False) -> Row | None:
        """One row; `lock` keeps others from changing it until the transaction ends."""
        query = select(self._table).where(self._table.c.id == row_id, self._living)
        row = connection.execute(query.with_for_update() if lock else query).first()
        return self._row(*row) if row else None

    def page(
        self,
        connection: Connection,
        limit: int,
        after: str | None,
        *,
        name: Sequence[str] | None = None,
        **wanted: Sequence[str] | bool | None,
    ) -> list[Row]:
        """Rows, newest first, one more than `limit` if there are more; of these names, without regard to case.

        `wanted`: values of other columns, each one of several texts, or a boolean.
        """
        table = self._table
        query: Select[Any] = select(table).where(self._living).order_by(table.c.id.desc()).limit(limit + 1)
        if after is not None:
            query = query.where(table.c.id < after)
        if name is not None:
            query = query.where(func.lower(table.c.name).in_([one.lower() for one in name]))
        for column, value in wanted.items():
            if isinstance(value, bool):
                query = query.where(table.c[column].is_(value))
            elif value is not None:
                query = query.where(table.c[column].in_(value))
        return [self._row(*row) for row in connection.execute(query)]

    def change(self, connection: Connection, row_id: str, values: Mapping[str, Any], *, version: bool = True) -> Row:
        """Write `values`; as the next version of what a caller can write, unless told otherwise."""
        table = self._table
        etag = {"etag": table.c.etag + 1} if version else {}
        statement = update(table).where(table.c.id == row_id).values(**values, **etag, updated_at=func.now())
        return self._row(*connection.execute(statement.returning(*table.c)).one())

    def remove(self, connection: Connection, row_id: str) -> None:
        """Delete a row, and what belongs to it alone."""
        connection.execute(delete(self._table).where(self._table.c.id == row_id))
