"""The pool of connections when the database is silent: nobody waits for long, and all comes back by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import psutil
import psycopg2
import pytest

from esb_workers.errors import Unavailable
from esb_workers.store.engine import Database, translated
from tests.conftest import with_database

SLEEP = "select pg_sleep(%s)"


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
