"""Circuits over several processes: whichever worker saw it, it counts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esb_workers.registry.circuit import WINDOW_SECONDS, Figures, Tally
from esb_workers.store import circuits
from esb_workers.store.circuits import Report
from esb_workers.store.engine import Database
from esb_workers.store.ids import new_id


@pytest.fixture
def instance(database: Database) -> str:
    return register(database)


def register(database: Database) -> str:
    id_ = new_id()
    with database.cursor() as cursor:
        cursor.execute(
            "insert into service (id, name, version, endpoint) values (%s, %s, '1.0.0', 'http://a')", (id_, id_)
        )
        cursor.execute("insert into service_state (service_id) values (%s)", (id_,))
    return id_


def report(database: Database, instance: str, outcomes: list[bool], epoch: int = 0) -> bool:
    """One process's report; whether the circuit opens by it."""
    tally = Tally()
    for ok in outcomes:
        tally.add(ok)
    rows = circuits.tally(database, [Report(instance, epoch, tally.ok, tally.failed, tally.trailing)], WINDOW_SECONDS)
    return any(Figures(row.in_a_row, row.ok, row.failed).opens() for row in rows)


def rows(database: Database) -> list[Any]:
    with database.cursor() as cursor:
        cursor.execute("select ok, failed from circuit_tally order by at")
        return cursor.fetchall()


def test_the_fifth_failure_in_a_row_opens_it_whichever_process_sees_it(database: Database, instance: str) -> None:
    assert not report(database, instance, [False, False])  # one process
    assert not report(database, instance, [True, False, False])  # another
    assert not report(database, instance, [False, False])
    assert report(database, instance, [False])


def test_while_an_instance_is_well_nothing_is_written_and_after_a_failure_successes_count(
    database: Database, instance: str
) -> None:
    report(database, instance, [True] * 50)
    assert rows(database) == []
    report(database, instance, [False] * 4)
    report(database, instance, [True])
    assert not report(database, instance, [False] * 4)
    assert rows(database) == [(0, 4), (1, 0), (0, 4)]


def test_half_of_ten_attempts_over_all_processes_open_it(database: Database, instance: str) -> None:
    assert not report(database, instance, [False, True, False, True, True])
    assert not report(database, instance, [False, True, False, True])
    assert report(database, instance, [False])


def test_what_was_seen_before_the_circuit_changed_says_nothing_about_now(database: Database, instance: str) -> None:
    report(database, instance, [False] * 4)
    assert circuits.change(database, instance, 0, "open", 1, -1)
    assert circuits.change(database, instance, 1, "half_open", 1, 10)
    assert circuits.change(database, instance, 2, "closed", 0, 0)
    assert not report(database, instance, [False], epoch=0)
    assert not report(database, instance, [False], epoch=3)


def test_reports_that_count_no_more_are_forgotten(database: Database, instance: str) -> None:
    with database.cursor() as cursor:
        cursor.execute(
            "insert into circuit_tally (service_id, at, ok, failed, tail) select %s, now() - x.age::interval, x.ok, x.failed, x.failed"
            " from (values ('2 days', 0, 1), ('3 min', 0, 2), ('2 min', 1, 0), ('90 s', 0, 3), ('1 s', 0, 4)) x(age, ok, failed)",
            (instance,),
        )
        circuits.forget_tallies(cursor)
    assert rows(database) == [(1, 0), (0, 3), (0, 4)]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=4), max_size=12))
def test_it_opens_exactly_by_its_two_rules(database: Database, reports: list[list[bool]]) -> None:
    instance, seen = register(database), []
    for outcomes in reports:
        if not seen and all(outcomes):
            assert not report(database, instance, outcomes)
            continue  # of an instance that is well nothing is kept
        seen += outcomes
        in_a_row = len(seen) >= 5 and not any(seen[-5:])
        half = len(seen) >= 10 and seen.count(False) * 2 >= len(seen)
        assert report(database, instance, outcomes) == (not all(outcomes) and (in_a_row or half))
