"""History is dropped when its time has passed, each class of it at its own; figures of work are kept."""

from __future__ import annotations

from esb_workers.app import make_celery
from esb_workers.runtime.ringer import Ringer
from esb_workers.settings import Settings
from esb_workers.store import counters, jobs, workers
from esb_workers.store.engine import Database
from esb_workers.store.ids import new_id
from esb_workers.upkeep.scheduler import Scheduler
from tests.support.api import ApiClient

HISTORY = ("attempt", "delivery", "event", "form", "health_check", "message", "message_end", "message_warning")


def old_partitions(database: Database) -> set[str]:
    """The tables that still have their partition of 2024 and before."""
    with database.cursor() as cursor:
        cursor.execute(
            "select p.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid join pg_class p on p.oid = i.inhparent"
            " where c.relname like '%%\\_old'"
        )
        return {row[0] for row in cursor.fetchall()}


def age(database: Database) -> None:
    with database.cursor() as cursor:
        for table in HISTORY:
            cursor.execute(
                f"create table {table}_old partition of {table} for values"
                " from ('00000000-0000-0000-0000-000000000000') to ('01900000-0000-0000-0000-000000000000')"
            )


def housekeeping(settings: Settings, database: Database, **days: int) -> None:
    kept = settings.model_copy(update={"retention_days": 3650} | days)
    ringer = Ringer(make_celery(kept))
    try:
        Scheduler(kept, database, ringer).housekeeping()
    finally:
        ringer.close()


def test_each_class_of_history_has_its_own_time(settings: Settings, database: Database) -> None:
    age(database)
    housekeeping(settings, database)
    assert old_partitions(database) == set(HISTORY)
    housekeeping(settings, database, retention_details_days=10)
    assert old_partitions(database) == set(HISTORY) - {"attempt", "form"}
    housekeeping(settings, database, retention_executions_days=10, retention_checks_days=10)
    assert old_partitions(database) == {"delivery", "message", "message_end", "message_warning"}
    housekeeping(settings, database, retention_days=10)
    assert old_partitions(database) == set()


def test_what_an_unfinished_row_points_into_is_kept(settings: Settings, database: Database) -> None:
    age(database)
    with database.cursor() as cursor:
        cursor.execute("select esb_lane(2::smallint, 'nobody')")
        cursor.execute(
            "insert into job (id, pool, lane_id, message_id) select %s, 2, min(id), '01800000-0000-7000-8000-000000000000' from lane",
            (new_id(),),
        )
    housekeeping(settings, database, retention_days=1)
    assert old_partitions(database) == set(HISTORY)


def test_dead_letters_replays_and_the_audit_trail_go_with_their_time(settings: Settings, database: Database) -> None:
    with database.cursor() as cursor:
        cursor.execute(
            "insert into dead_letter (delivery_id, message_id, lane_id, at) select gen_random_uuid(), gen_random_uuid(), 1, now() - x * interval '1 day' from unnest(array[1, 20]) x"
        )
        cursor.execute(
            "insert into replay (id, filter, status, matched, finished_at) select gen_random_uuid(), '{}', s, 1, now() - d * interval '1 day'"
            " from (values ('completed', 1), ('completed', 20), ('running', null)) x(s, d)"
        )
        cursor.execute("insert into replay_item (replay_id, delivery_id) select id, gen_random_uuid() from replay")
        cursor.execute(
            "insert into audit (id, at, actor, action, resource, resource_id) select esb_uuid_at(now() - x * interval '1 day'), now(), 'operator', 'a', 'b', 'c' from unnest(array[1, 400]) x"
        )
    housekeeping(settings, database, retention_days=10)
    with database.cursor() as cursor:
        for table, left in (("dead_letter", 1), ("replay", 2), ("replay_item", 2), ("audit", 1)):
            cursor.execute(f"select count(*) from {table}")
            assert cursor.fetchone() == (left,), table


def test_figures_tell_of_leases_that_ran_out_and_of_what_was_taken_back(api: ApiClient, database: Database) -> None:
    with database.cursor() as cursor:
        cursor.execute("select esb_lane(2::smallint, 'nobody')")
        cursor.execute("update lane set gate_until = '-infinity'")
        cursor.execute(
            "insert into job (id, pool, lane_id, message_id) select %s, 2, min(id), %s from lane", (new_id(),) * 2
        )
        silent = workers.register(cursor, 2, "here", 1, "0", 60)
        assert len(jobs.claim(cursor, 2, silent, 5, 5)) == 1
        cursor.execute("update worker set beat_until = now() - interval '1 s'")
        cursor.execute("select * from esb_sweep(10, interval '0')")
        assert cursor.rowcount == 1
        for _ in range(2):
            counters.add(cursor, 2, {"claimed": 3, "superseded": 1})
        cursor.execute("update lane set gate = 'maintenance', gate_until = 'infinity'")
    text = api.get("/metrics").text
    for line in (
        'esb_workers_lost_total{pool="delivery"} 1.0', 'esb_swept_total{pool="delivery"} 1.0',
        'esb_claimed_total{pool="delivery"} 6.0', 'esb_superseded_total{pool="delivery"} 2.0',
        'esb_lanes_held{reason="maintenance"} 1.0', 'esb_circuits{state="open"} 0.0', "esb_dead_letters 0.0",
        "esb_blocked_keys 0.0",
    ):  # fmt: skip
        assert line in text, line
