"""Connections: kept, prepared, and when the database is silent: nobody waits for long, and all comes back by itself."""

from __future__ import annotations

import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg2
import pytest

from esb_workers.errors import Unavailable
from esb_workers.store import engine as engines
from esb_workers.store.engine import Database, Line, translated
from esb_workers.store.prepared import Prepared
from tests.conftest import with_database

SLEEP = "select pg_sleep(%s)"
FILES = Path("/proc/self/fd")


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, psutil.Process]]:
    """A server of this test's own, to be frozen: its URL and its first process."""
    from esb_workers.node.postgres import EmbeddedPostgres

    with EmbeddedPostgres(tmp_path_factory.mktemp("frozen")) as server:
        pid = int((server.cluster / "postmaster.pid").read_text().split()[0])
        yield with_database(server.url, "esb"), psutil.Process(pid)


def freeze(postmaster: psutil.Process) -> Callable[[], None]:
    family = [postmaster, *postmaster.children(recursive=True)]
    for process in family:
        process.suspend()

    def thaw() -> None:
        for process in family:
            process.resume()

    return thaw


def test_a_frozen_database_is_told_within_seconds_and_found_again_when_it_thaws(
    own_server: tuple[str, psutil.Process], eventually: Callable[..., None]
) -> None:
    url, postmaster = own_server
    database = Database(url)
    with database.cursor() as cursor:
        cursor.execute("select 1")
    thaw = freeze(postmaster)
    try:
        began = time.monotonic()
        with pytest.raises(Unavailable), database.cursor() as cursor:
            cursor.execute("select 1")
        assert time.monotonic() - began < 5
        began = time.monotonic()
        with pytest.raises(Unavailable), database.cursor():
            pass
        assert time.monotonic() - began < 0.5, "it is known by now"
    finally:
        thaw()

    def answers() -> bool:
        try:
            with database.cursor() as cursor:
                cursor.execute("select 1")
        except Unavailable:
            return False
        return True

    eventually(answers)
    database.dispose()


def test_a_connection_that_breaks_in_the_middle_of_a_statement_means_that_the_database_is_away(
    own_server: tuple[str, psutil.Process],
) -> None:
    """psycopg2 has a bare DatabaseError for it, with no code: taken for a defect, it killed the heart of a worker."""
    database = Database(own_server[0])
    with pytest.raises(Unavailable), database.cursor() as cursor:
        cursor.execute("select pg_backend_pid()")
        (pid,) = cursor.fetchone()  # type: ignore[misc]
        threading.Timer(0.3, psutil.Process(pid).kill).start()
        cursor.execute(SLEEP, (10,))
    database.dispose()
    assert isinstance(translated(psycopg2.DatabaseError("server closed the connection unexpectedly")), Unavailable)


def test_a_slow_statement_is_left_alone(database: Database) -> None:
    finished = threading.Event()

    def slow() -> None:
        with database.cursor() as cursor:
            cursor.execute(SLEEP, (4,))
        finished.set()

    threading.Thread(target=slow).start()
    assert finished.wait(10)


def backend(line: Line) -> int:
    """The server process that answers on a line."""
    with line.cursor() as cursor:
        cursor.execute("select pg_backend_pid()")
        return int(cursor.fetchone()[0])  # type: ignore[index]


def test_a_line_keeps_its_connection_and_who_comes_meanwhile_gets_another(database: Database) -> None:
    line = database.line()
    first = backend(line)
    assert database.engine.pool.checkedout() == 1, "it is the line's, and nobody else's"  # type: ignore[attr-defined]
    assert backend(line) == first
    with line.cursor():
        assert backend(line) != first
    assert database.engine.pool.checkedout() == 1  # type: ignore[attr-defined]


def test_a_line_whose_connection_is_cut_has_another_one_the_time_after(database: Database) -> None:
    line = database.line()
    first = backend(line)
    with database.cursor() as cursor:
        cursor.execute("select pg_terminate_backend(%s)", (first,))
    with pytest.raises(Unavailable):
        backend(line)
    assert backend(line) != first


def test_a_connection_of_a_line_does_not_grow_older_than_others(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = database.line()
    first = backend(line)
    monkeypatch.setattr(engines, "RECYCLE", -1.0)
    monkeypatch.setattr(database.engine.pool, "_recycle", 0)
    assert backend(line) != first


def test_a_line_that_is_not_in_use_is_not_overdue(database: Database) -> None:
    """Or the server would be asked all the time whether it still talks."""
    line = database.line()
    backend(line)
    assert database._watch._used == {} and database.engine.pool.checkedout() == 1  # type: ignore[attr-defined]
    with line.cursor():
        assert len(database._watch._used) == 1


def test_a_frozen_database_is_told_on_a_line_too(own_server: tuple[str, psutil.Process]) -> None:
    url, postmaster = own_server
    database = Database(url)
    line = database.line()
    backend(line)
    thaw = freeze(postmaster)
    try:
        began = time.monotonic()
        for _ in range(2):
            with pytest.raises(Unavailable):
                backend(line)
        assert time.monotonic() - began < 6
    finally:
        thaw()
    database.dispose()


@pytest.fixture
def probe() -> Prepared:
    return Prepared("probe", "select * from probe(%s, %s::text)")


def make_probe(database: Database, answers: str) -> None:
    with database.cursor() as cursor:
        cursor.execute("drop function if exists probe")
        cursor.execute(
            f"create function probe(n int, t text) returns table ({answers}) language sql as 'select n, t'"
            if "," in answers
            else f"create function probe(n int, t text) returns {answers} language sql as 'select n'"
        )


def ask(line: Line, probe: Prepared) -> tuple[object, ...] | None:
    with line.cursor() as cursor:
        probe.execute(cursor, (1, "it's"))
        return cursor.fetchone()


def prepared_in(line: Line) -> list[str]:
    with line.cursor() as cursor:
        cursor.execute("select name from pg_prepared_statements")
        return [name.rpartition("_")[0] for (name,) in cursor.fetchall()]


def test_a_prepared_statement_is_planned_once_a_connection(database: Database, probe: Prepared) -> None:
    make_probe(database, "a int, b text")
    line = database.line()
    assert ask(line, probe) == ask(line, probe) == (1, "it's")
    assert prepared_in(line) == ["probe"]


def test_a_statement_whose_answer_an_upgrade_has_changed_is_prepared_anew(database: Database, probe: Prepared) -> None:
    make_probe(database, "a int, b text")
    line = database.line()
    ask(line, probe)
    make_probe(database, "int")
    with pytest.raises(Unavailable):
        ask(line, probe)
    assert ask(line, probe) == (1,)
    assert prepared_in(line) == ["probe"]


#: What a client meets behind a pooler that gives each transaction another connection.
POOLED = ["deallocate all", "prepare {name} as select 1"]


@pytest.mark.parametrize("meanwhile", POOLED)
def test_where_connections_change_in_between_a_statement_is_executed_as_it_is(
    database: Database, probe: Prepared, meanwhile: str
) -> None:
    make_probe(database, "a int, b text")
    line = database.line()
    if "deallocate" in meanwhile:
        ask(line, probe)
    with line.cursor() as cursor:
        cursor.execute(meanwhile.format(name=probe._name))
    assert ask(line, probe) == ask(line, probe) == (1, "it's")
    with line.cursor() as cursor:
        cursor.execute("deallocate all")
    assert ask(line, probe) == (1, "it's")
    assert prepared_in(line) == []


def test_inside_a_transaction_it_is_so_from_the_next_one_on(database: Database, probe: Prepared) -> None:
    make_probe(database, "a int, b text")
    with pytest.raises(Unavailable), database.raw_transaction() as cursor:
        probe.execute(cursor, (1, "it's"))
        cursor.execute("deallocate all")
        probe.execute(cursor, (1, "it's"))
    with database.raw_transaction() as cursor:
        probe.execute(cursor, (1, "it's"))
        assert cursor.fetchone() == (1, "it's")


def test_lines_leave_a_small_pool_what_it_had(database_url: str) -> None:
    """Two connections, one inside a transaction that needs the other, beside those that two lines keep."""
    small = Database(database_url, pool_size=1)
    lines = small.line(), small.line()
    with lines[0].cursor(), lines[1].cursor():
        pass
    with small.raw_transaction(), small.cursor() as cursor:
        cursor.execute("select 1")
        assert cursor.fetchone() == (1,)
    small.dispose()


def test_on_a_connection_from_elsewhere_a_statement_is_executed_as_it_is(
    database: Database, database_url: str, probe: Prepared
) -> None:
    make_probe(database, "a int, b text")
    connection = psycopg2.connect(database_url)
    with connection.cursor() as cursor:
        probe.execute(cursor, (1, "it's"))
        assert cursor.fetchone() == (1, "it's")
    connection.close()


@pytest.fixture
def full_server(tmp_path: Path) -> Iterator[str]:
    """A server that refuses every login for want of connections: its URL."""
    body = b"SFATAL\0C53300\0Msorry, too many clients already\0\0"
    answer = b"E" + (len(body) + 4).to_bytes(4, "big") + body
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / ".s.PGSQL.5432"))
        server.listen(50)

        def refuse() -> None:
            while True:
                try:
                    with server.accept()[0] as client:
                        client.recv(1000)
                        client.sendall(answer)
                except OSError:
                    return

        threading.Thread(target=refuse, daemon=True).start()
        yield f"postgresql://esb@/esb?host={tmp_path}"
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.skipif(not FILES.is_dir(), reason="counts files by /proc")
def test_a_connection_that_is_refused_leaves_no_file_for_the_garbage_collector(full_server: str) -> None:
    database = Database(full_server)
    gc.disable()
    try:
        before = len(list(FILES.iterdir()))
        for _ in range(30):
            with pytest.raises(Unavailable), database.cursor():
                pass
        assert len(list(FILES.iterdir())) <= before + 3
    finally:
        gc.enable()
