"""Circuits: each change is a compare-and-set on its epoch, and moves gate and revision in the same transaction."""

from __future__ import annotations

from esb_workers.store.engine import Database

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
    return row is not None
