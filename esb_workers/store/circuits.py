"""Circuits: each change is a compare-and-set on its epoch, and moves gate and revision in the same transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from esb_workers.store import events
from esb_workers.store.engine import Cursor, Database

_CHANGE = """
    with changed as (
      update service_state st set circuit = %(to)s, circuit_opens = %(opens)s, circuit_epoch = st.circuit_epoch + 1,
             circuit_changed_at = now(), circuit_until = now() + make_interval(secs => %(seconds)s),
             probe_until = case %(to)s when 'half_open' then now() + make_interval(secs => %(seconds)s)
                                       else '-infinity' end
        from service s
       where st.service_id = %(id)s and s.id = st.service_id and st.circuit_epoch = %(epoch)s
         and (%(to)s <> 'half_open' or (st.circuit <> 'closed' and st.circuit_until <= now()))
      returning s.name)
    select name from changed"""


class Report(NamedTuple):
    """What a process saw of an instance whose circuit stood at `epoch`; `trailing`: failures after the last ok."""

    service_id: str
    epoch: int
    ok: int
    failed: int
    trailing: int


class FiguresRow(NamedTuple):
    """What all processes saw of an instance: failures in a row, and both kinds within the window."""

    service_id: str
    in_a_row: int
    ok: int
    failed: int


def tally(database: Database, reports: Sequence[Report], window_seconds: float) -> list[FiguresRow]:
    """Add reports; the figures of those instances that failed. Two statements: the second sees what others have added."""
    with database.cursor() as cursor:
        cursor.execute(
            "select esb_tally(%s::uuid[], %s::bigint[], %s::int[], %s::int[], %s::int[])",
            tuple(map(list, zip(*reports, strict=True))),
        )
        failing = [report.service_id for report in reports if report.failed]
        if not failing:
            return []
        cursor.execute("select * from esb_circuit_figures(%s::uuid[], %s)", (failing, window_seconds))
        return [FiguresRow(service_id, *map(int, figures)) for service_id, *figures in cursor.fetchall()]


def forget_tallies(cursor: Cursor) -> None:
    """Drop reports that count no more."""
    cursor.execute("select esb_forget_tallies()")


def change(database: Database, service_id: str, epoch: int, to: str, opens: int, seconds: float) -> bool:
    """Move a circuit from the state it had at `epoch`; False if somebody else has moved it since.

    `seconds`: the pause of an open one, the lease of a probe. A probe is granted only when the pause is over by the
    database's clock: of all who ask, in all processes, one gets it.
    """
    with database.raw_transaction() as cursor:
        cursor.execute(_CHANGE, {"id": service_id, "epoch": epoch, "to": to, "opens": opens, "seconds": seconds})
        row = cursor.fetchone()
        if row is not None:
            # Only now, in a statement of its own: the gate is computed from what the one before has written.
            cursor.execute("select esb_gate(%s), esb_changed('services')", (row[0],))
            if to != "half_open":
                told = {"serviceId": service_id, "name": row[0], "openings": opens, "pauseSeconds": seconds}
                events.tell(cursor, "esb.circuit.opened" if to == "open" else "esb.circuit.closed", told)
    return row is not None
