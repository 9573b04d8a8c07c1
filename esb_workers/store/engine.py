"""Connections to PostgreSQL: one pool a process, and the translation of its errors at this border."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Final

import psycopg2
import psycopg2.extensions
from sqlalchemy import Connection, Engine, create_engine, event, exc
from sqlalchemy.engine import make_url

from esb_workers import errors
from esb_workers.store import prepared
from esb_workers.store.watch import Watch

#: SQLSTATEs by which the functions of the schema speak to their callers.
FENCED, WORKER_DEAD, STALE_REVISION = "ES001", "ES002", "ES003"
#: Classes of SQLSTATE that mean "the server is away or busy", not "the statement is wrong".
_AWAY = ("08", "53", "57")
_LOCK_TIMEOUT, _DEADLOCK, _SERIALIZATION = "55P03", "40P01", "40001"

#: No connection is older when it is used again, seconds.
RECYCLE: Final = 1800
_MADE: Final = "made"  # among what is known of a connection: when it was, monotonic

Cursor = psycopg2.extensions.cursor
#: A SQLAlchemy connection inside a transaction, as other packages name it without importing SQLAlchemy.
Transaction = Connection

#: Ids are text everywhere in the code; SQLAlchemy's dialect would make UUID objects of them.
_UUID_AS_TEXT = psycopg2.extensions.new_type((2950,), "UUID", psycopg2.extensions.UNICODE)
_UUIDS_AS_TEXT = psycopg2.extensions.new_array_type((2951,), "UUID[]", _UUID_AS_TEXT)


class StaleRevision(Exception):
    """What the caller knew of the registrations was out of date; look again and repeat."""


class Database:
    """A pool of connections. One a process; made after any fork."""

    def __init__(self, url: str, *, pool_size: int = 10, name: str = "esb", statement_timeout_ms: int = 15_000) -> None:
        self.url = url
        options = (
            f"-c jit=off -c statement_timeout={statement_timeout_ms} -c lock_timeout=3000"
            " -c idle_in_transaction_session_timeout=15000 -c timezone=UTC"
        )
        self.engine: Engine = create_engine(
            make_url(url).set(drivername="postgresql+psycopg2"),
            isolation_level="AUTOCOMMIT",
            pool_size=pool_size,
            max_overflow=pool_size + 2,  # lines keep theirs
            pool_timeout=3,
            pool_recycle=RECYCLE,
            pool_use_lifo=True,
            # In autocommit there is nothing to roll back; the reset would be a round trip for every lease.
            pool_reset_on_return=None,
            connect_args={
                "connection_factory": prepared.Connection,
                "connect_timeout": 3,
                "application_name": name,
                "options": options,
                "keepalives": 1,
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 3,
            },
        )

        event.listen(self.engine, "connect", _set_up)
        self._watch = Watch(self.engine, url)
        self._lines: list[Line] = []

    @contextmanager
    def cursor(self, line: Line | None = None) -> Iterator[Cursor]:
        """A raw cursor in autocommit. Raises Unavailable when the server is away, StaleRevision, Superseded."""
        lease = self._lease() if line is None else line.take(self._lease)
        try:
            if not lease.dbapi_connection.autocommit:
                lease.dbapi_connection.autocommit = True
            with lease.dbapi_connection.cursor() as cursor:
                yield cursor
        except psycopg2.Error as error:
            # What is left of the connection is unknown, unless the server itself refused the statement.
            if not error.pgcode or error.pgcode.startswith(_AWAY):
                lease.invalidate()
            raise translated(error) from error
        finally:
            if line is None:
                lease.close()
            else:
                line.put(lease)

    def line(self) -> Line:
        """A line of its own, for who executes statements all the time."""
        line = Line(self, self._watch)
        self._lines.append(line)
        return line

    @contextmanager
    def raw_transaction(self) -> Iterator[Cursor]:
        """A raw cursor inside a transaction, committed at the end, rolled back on any exception."""
        with self.cursor() as cursor:
            cursor.execute("begin")
            try:
                yield cursor
                cursor.execute("commit")
            except BaseException:
                if not cursor.connection.closed:
                    try:
                        cursor.execute("rollback")
                    except psycopg2.Error:
                        cursor.connection.close()
                raise

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A SQLAlchemy connection inside a transaction."""
        self._require_answers()
        try:
            with self.engine.connect().execution_options(isolation_level="READ COMMITTED") as connection:
                with connection.begin():
                    yield connection
        except exc.DBAPIError as error:
            raise translated(error.orig) from error
        except exc.TimeoutError as error:
            raise errors.Unavailable("all database connections are in use") from error

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A SQLAlchemy connection in autocommit, for single statements that only read."""
        self._require_answers()
        try:
            with self.engine.connect() as connection:
                yield connection
        except exc.DBAPIError as error:
            raise translated(error.orig) from error
        except exc.TimeoutError as error:
            raise errors.Unavailable("all database connections are in use") from error

    def _require_answers(self) -> None:
        """Nobody queues up behind a server that is known to be silent."""
        if self._watch.silent:
            raise errors.Unavailable("the database does not answer")

    def _lease(self) -> Any:
        self._require_answers()
        for attempt in (1, 2):
            try:
                lease = self.engine.raw_connection()
            except psycopg2.Error as error:  # not wrapped by SQLAlchemy here: this is below its Connection
                raise translated(error) from error
            except exc.TimeoutError as error:
                raise errors.Unavailable("all database connections are in use") from error
            # A connection that the server closed while it lay in the pool shows it; try a new one once.
            if lease.dbapi_connection is not None and not lease.dbapi_connection.closed:
                return lease
            lease.invalidate()
            if attempt == 2:
                lease.close()
                raise errors.Unavailable("the database closes its connections")
        raise AssertionError("unreachable")

    def dispose(self) -> None:
        """Close every connection that is not in use, and watch no longer over the others."""
        self._watch.close()
        for line in self._lines:
            line.hang_up()
        self.engine.dispose()


class Line:
    """A connection that is kept between statements: to take one from the pool and give it back costs as much as a
    statement where little is to do [measured: 80 µs every 5 ms]. Safe for threads: who comes while it is in use gets
    one of the pool's.
    """

    def __init__(self, database: Database, watch: Watch) -> None:
        self._database = database
        self._watch = watch
        self._kept: deque[Any] = deque()

    def cursor(self) -> AbstractContextManager[Cursor]:
        """As `Database.cursor`."""
        return self._database.cursor(self)

    def take(self, otherwise: Callable[[], Any]) -> Any:
        """The lease that is kept, or another one."""
        try:
            lease = self._kept.pop()
        except IndexError:
            return otherwise()
        connection = lease.dbapi_connection
        if connection.closed or self._watch.silent or time.monotonic() - lease.info[_MADE] > RECYCLE:
            lease.close()
            return otherwise()
        self._watch.taken(connection)
        return lease

    def put(self, lease: Any) -> None:
        """Keep it, if it is still good and no other is kept."""
        connection = lease.dbapi_connection
        if connection is None or connection.closed or self._kept:
            lease.close()
            return
        self._watch.returned(connection)
        self._kept.append(lease)

    def hang_up(self) -> None:
        """Give back what is kept."""
        with suppress(IndexError):
            while True:
                self._kept.pop().close()


def _set_up(connection: Any, record: Any) -> None:
    record.info[_MADE] = time.monotonic()
    psycopg2.extensions.register_type(_UUID_AS_TEXT, connection)
    psycopg2.extensions.register_type(_UUIDS_AS_TEXT, connection)


def translated(error: BaseException | None) -> Exception:
    """The bus's error for one of psycopg2's; a defect in a statement stays what it is."""
    if not isinstance(error, psycopg2.Error):
        return error if isinstance(error, Exception) else errors.EsbError(str(error))
    code = error.pgcode
    if code == STALE_REVISION:
        return StaleRevision()
    if code == WORKER_DEAD:
        return errors.WorkerDeclaredDead()
    if code == FENCED:
        return errors.Superseded()
    # A connection that breaks in the middle of a statement is a bare DatabaseError, unlike one that breaks elsewhere.
    broken = (
        isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError) or type(error) is psycopg2.DatabaseError
    )
    away = code is None and broken
    if away or (code and (code.startswith(_AWAY) or code in (_LOCK_TIMEOUT, _DEADLOCK, _SERIALIZATION))):
        return errors.Unavailable(
            f"the database is not available: {str(error).strip().splitlines()[0] if str(error).strip() else code}"
        )
    return error


def is_unique_violation(error: BaseException, constraint: str | None = None) -> bool:
    """Whether an error (possibly wrapped by SQLAlchemy) is a breach of a unique index, of this one if named."""
    original = getattr(error, "orig", error)
    if not isinstance(original, psycopg2.Error) or original.pgcode != "23505":
        return False
    return constraint is None or original.diag.constraint_name == constraint
