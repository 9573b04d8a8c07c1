"""Groups at work: what routing puts into them, and what their holder lets out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from esb_workers.clock import to_wire
from esb_workers.errors import EsbError, TransformationError
from esb_workers.expressions.templates import Template
from esb_workers.routing import matching
from esb_workers.routing.book import Book
from esb_workers.routing.gathering import MAX_BYTES, Ordered, Waiting, collect, order
from esb_workers.routing.matching import Variables
from esb_workers.routing.options import DEFAULT_WAIT, MAX_PARTS, Aggregate
from esb_workers.routing.route import Route
from esb_workers.routing.transform import Form
from esb_workers.store import groups
from esb_workers.store.engine import Database
from esb_workers.store.groups import Member
from esb_workers.store.ids import new_id
from esb_workers.store.jobs import Claim, Done
from esb_workers.store.messages import StoredMessage

Json = dict[str, Any]

#: A group whose route cannot be used by this worker is looked at again after this, milliseconds.
UNUSABLE_PAUSE: Final = 30_000
#: What `when` may ask for that only the holder of the group knows.
_OF_GROUP: Final = frozenset({"items", "count"})


def is_group(claim: Claim) -> bool:
    """Whether a job of the routing pool is a group, and not a message."""
    return claim.cursor is not None and "gather" in claim.cursor


# --- joining -----------------------------------------------------------------------------------------------


def joins_collection(route: Route, part: Variables, stored: StoredMessage, group_lane: int, row: Json) -> Json:
    """The row of a part that joins a collection; `row` is its delivery, as yet without a form.

    Raises TransformationError when it has no form or no key.
    """
    wanted = route.aggregate
    assert wanted is not None
    payload, headers = matching.form_of_route(route, part)
    asks_group = wanted.when is not None and bool(wanted.when.names & _OF_GROUP)
    last = wanted.when is not None and not asks_group and _holds(wanted, Form(payload, headers, part).scope)
    key = _key(wanted.key, part, "aggregate.key")
    if route.recipients is not None:  # the message names them, so its sender's grant must still be known then
        key = matching.short_key(f"{stored.client_id or ''}|{key}")
    member = {"id": row["id"], "lane": row["lane"], "cursor": row["cursor"] | ({"last": True} if last else {})}
    if route.transformation is not None or route.split is not None:
        member |= {"payload": matching.as_text(payload), "headers": matching.as_text(headers)}
        member["cursor"]["form"] = True
    joining = {"kind": "aggregate", "timeout": wanted.timeout, "size": wanted.size, "wake": last or asks_group}
    return _joining(route, stored, group_lane, key, [member], joining)


def joins_sequence(
    route: Route, part: Variables, stored: StoredMessage, group_lane: int, rows: Sequence[Json]
) -> list[Json]:
    """The rows of a part whose deliveries wait for their turn; what has ended already waits for nothing.

    Raises TransformationError when the part has no number or no key.
    """
    wanted = route.resequence
    assert wanted is not None
    number = _number(wanted.sequence, part)
    key = _key(wanted.key, part, "resequence.key")
    members, others = [], []
    for row in rows:
        if "status" in row or "failed" in row["cursor"]:
            others.append(row)
            continue
        cursor = row["cursor"] | {"number": number, "okey": row.get("okey") or key}
        member = {k: row[k] for k in ("id", "lane", "payload", "headers") if k in row} | {"cursor": cursor}
        if "then" in cursor:  # from now on it is ordered, so that it is formed in the lane where its order is
            member["lane"] = cursor.pop("then")
        members.append(member)
    joining = {"kind": "resequence", "timeout": wanted.timeout, "size": None, "wake": True}
    return [*others, _joining(route, stored, group_lane, key, members, joining)] if members else others


def _joining(
    route: Route, stored: StoredMessage, group_lane: int, key: str, members: list[Json], joining: Json
) -> Json:
    where = {"message": stored.id, "route": route.id, "lane": group_lane, "key": key, "fresh": new_id()}
    return {"gather": where | joining | {"members": members}}


def _key(template: Template, variables: Variables, what: str) -> str:
    try:
        return matching.short_key(template.render_text(variables))
    except EsbError as error:
        raise TransformationError(f"{what}: {error.detail}") from error


def _number(template: Template, variables: Variables) -> int:
    try:
        value = template.render(variables)
        number = int(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    except (EsbError, ValueError, OverflowError) as error:
        raise TransformationError(f"resequence.sequence: {getattr(error, 'detail', error)}") from error
    if number is None or number != float(value) or abs(number) > 2**53:
        raise TransformationError("resequence.sequence: it gave no whole number")
    return number


def _holds(wanted: Aggregate, variables: Variables) -> bool:
    return wanted.when is not None and matching.refusal(wanted.when, variables) is None


# --- leaving -----------------------------------------------------------------------------------------------


class Groups:
    """What a worker does with the groups it has claimed."""

    def __init__(self, database: Database, book: Book) -> None:
        self._database = database
        self._book = book

    def look(self, worker: int, claim: Claim) -> Done:
        """Let out of a group what may leave it. Raises Unavailable."""
        self._book.at(claim.rev)
        route = self._book.route(claim.route_id)
        with self._database.cursor() as cursor:
            members = groups.members(cursor, claim.id, MAX_PARTS, MAX_BYTES)
        state: Json = claim.cursor or {}
        if route is None:
            decision = {"send": [], "sets": [], "due": UNUSABLE_PAUSE, "cursor": state | {"n": len(members)}}
        elif state["gather"] == "aggregate":
            decision = _collection(route, state, members)
        else:
            decision = _sequence(route, state, members)
        decision |= {"id": claim.id, "attempt": claim.attempt, "inbox": claim.inbox}
        with self._database.raw_transaction() as cursor:
            return groups.release(cursor, worker, decision)


def _collection(route: Route, state: Json, members: Sequence[Member]) -> Json:
    by_id = {member.id: member for member in members}
    wanted = route.aggregate  # None: the route collects no more, so that what waits goes out
    result = collect(
        [Waiting(m.id, m.age_ms, len(m.payload), last=bool(m.cursor.get("last"))) for m in members],
        size=wanted.size if wanted else None,
        timeout=wanted.timeout if wanted else 0,
        complete=_completeness(wanted, state, by_id),
        more=bool(members and members[0].more),
    )
    left = members[len(members) - result.left :] if result.left else []
    seen = {"first": left[0].id if left else None, "seen": len(left)}
    return {
        "send": [],
        "sets": [
            {"members": [one.id for one in complete], "message": _message([by_id[one.id] for one in complete])}
            for complete in result.sets
        ],
        "due": result.due,
        "cursor": state | seen | {"n": len(left)},
    }


def _completeness(
    wanted: Aggregate | None, state: Json, members: dict[str, Member]
) -> Callable[[Sequence[Waiting]], bool]:
    """Whether `when` holds of a collection; of one that was looked at before, only what has come since is asked."""
    when = wanted.when if wanted else None
    if wanted is None or when is None or not when.names & _OF_GROUP:
        return lambda collection: False

    def complete(collection: Sequence[Waiting]) -> bool:
        if collection[0].id == state.get("first") and len(collection) <= state.get("seen", 0):
            return False
        last = members[collection[-1].id]
        items = [orjson.loads(members[one.id].payload) for one in collection]
        seen = {"payload": items[-1], "item": items[-1], "items": items, "count": len(items), "source": last.source}
        seen |= {"headers": orjson.loads(last.headers), "messageType": last.type}
        return _holds(wanted, seen | {"correlationId": last.correlation_id, "now": datetime.now(UTC)})

    return complete


def _message(members: Sequence[Member]) -> Json:
    """The message that a collection becomes: the list of its payloads, and in all else its first one's heir."""
    first = members[0]
    clients = {member.client_id for member in members}
    reply = {member.reply_to for member in members}
    expiries = [member.expires_at for member in members]
    return {
        "id": new_id(),
        "client": first.client_id if len(clients) == 1 else None,
        "source": first.source,
        "type": first.type,
        "corr": first.correlation_id,
        "prio": max(member.priority for member in members),
        "exp": to_wire(max(expiries)) if all(expiries) else None,
        "reply": first.reply_to if len(reply) == 1 else None,
        "trace": first.traceparent,
        "headers": first.headers,
        "payload": f"[{','.join(member.payload for member in members)}]",
    }


def _sequence(route: Route, state: Json, members: Sequence[Member]) -> Json:
    wanted = route.resequence  # None: the route puts nothing in order any more
    waiting = [Waiting(m.id, m.age_ms, number=m.cursor["number"]) for m in members]
    first, timeout = (wanted.first, wanted.timeout) if wanted else (None, 0)
    result: Ordered = order(waiting, state.get("next"), first=first, timeout=timeout)
    left = len(members) - len(result.send)
    due = result.due
    if members and members[0].more:
        due = 0
    elif due is None and members:
        due = max(DEFAULT_WAIT, timeout)  # where it stands is remembered so long, and then forgotten
    return {"send": result.send, "sets": [], "due": due, "cursor": state | {"next": result.next, "n": left}}
