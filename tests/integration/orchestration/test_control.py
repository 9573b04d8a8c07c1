"""What people do to runs: each act where it is allowed, refused elsewhere, and what the run makes of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from esb_workers.errors import Conflict, IllegalTransition, Invalid, NotFound
from esb_workers.orchestration.control import Control, cancel_orphans
from esb_workers.orchestration.world import Answer, ServiceReply, ServiceRequest
from esb_workers.store import runs
from esb_workers.store.ids import new_id
from tests.support.workflows import Bench, Silent, down, service

NOBODY = "00000000-0000-0000-0000-000000000000"


def setting(id_: str, **variables: Any) -> dict[str, Any]:
    return {"id": id_, "type": "set", "config": {"variables": variables}}


def pausing(id_: str = "w", **over: Any) -> dict[str, Any]:
    return {"id": id_, "type": "wait", "config": {"duration": 3_600_000}, **over}


class Person:
    """Steers runs, and sees their status as the answer tells it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.control = Control(bench.database, Silent(), bench.programs)  # type: ignore[arg-type]

    def do(self, action: str, id_: str, *args: Any, **kw: Any) -> str:
        def read(cursor: Any) -> str:
            row = runs.get(cursor, id_)
            assert row is not None
            return row.status

        if action == "cancel":
            kw.setdefault("compensate", False)
            args = args or (None,)
        if action == "rerun":
            args = (args[0], args[1] if len(args) > 1 else {})
        return str(getattr(self.control, action)(id_, *args, read, by="ann", **kw))

    def status(self, id_: str) -> str:
        with self.bench.database.cursor() as cursor:
            row = runs.get(cursor, id_)
        assert row is not None
        return row.status


@pytest.fixture
def ann(bench: Bench) -> Person:
    return Person(bench)


def paths(bench: Bench) -> list[str]:
    """The keys of the calls made so far, without the run's id."""
    return [call.idempotency_key.split(":", 1)[1] for call in bench.services.calls]


# --- which act in which state ----------------------------------------------------------------------------


def in_state(bench: Bench, ann: Person, state: str) -> str:
    """A run in this state."""
    if state == "pending":
        return bench.start(bench.define([service("a")]))
    if state in ("waiting", "paused", "cancelled"):
        id_ = bench.start(bench.define([pausing()]))
        bench.pump()
        if state != "waiting":
            ann.do({"paused": "pause", "cancelled": "cancel"}[state], id_)
        return id_
    if state == "timed_out":
        id_ = bench.start(bench.define([pausing()], timeout=20))
    elif state == "compensated":
        step = service("a", compensate={"type": "service_call", "config": {"serviceName": "svc", "method": "u"}})
        bench.services.on_call = lambda r: down(400, retryable=False) if r.path == "bad" else None
        id_ = bench.start(
            bench.define([step, service("b", method="bad")], flow="sequential", errorHandling={"onError": "compensate"})
        )
    else:
        steps = [{"id": "f", "type": "fail", "config": {"error": "X", "message": "x"}}] if state == "failed" else None
        id_ = bench.start(bench.define(steps or [setting("a", x=1)]))
    bench.settle()
    return id_


ALLOWED = {
    "cancel": {"pending", "waiting", "paused"},
    "pause": {"pending", "waiting"},
    "resume": {"paused"},
    "retry": {"failed", "timed_out"},
    "rerun": {"completed", "failed", "cancelled", "compensated", "timed_out"},
    "edit": {"paused"},
    "signal": {"pending", "waiting", "paused"},
}
STATES = ("pending", "waiting", "paused", "completed", "failed", "cancelled", "compensated", "timed_out")
ARGS: dict[str, tuple[Any, ...]] = {"rerun": (None,), "edit": ({"x": 1},), "signal": ("s", None)}


@pytest.mark.parametrize("state", STATES)
def test_each_act_is_allowed_exactly_where_it_makes_sense(bench: Bench, ann: Person, state: str) -> None:
    for action, states in ALLOWED.items():
        id_ = in_state(bench, ann, state)
        assert ann.status(id_) == state
        if state in states:
            ann.do(action, id_, *ARGS.get(action, ()))
        else:
            before = bench.events(id_)
            with pytest.raises(IllegalTransition):
                ann.do(action, id_, *ARGS.get(action, ()))
            assert bench.events(id_) == before and ann.status(id_) == state
    with pytest.raises(NotFound):
        ann.do("pause", new_id())


def test_every_act_is_in_the_audit_and_in_the_history(bench: Bench, ann: Person) -> None:
    id_ = bench.start(bench.define([pausing(), setting("x", done=True)], flow="sequential"))
    bench.pump()
    for action, args in (("pause", ()), ("edit", ({"n": 1},)), ("skip", ("w",)), ("resume", ()), ("cancel", ("why",))):
        ann.do(action, id_, *args)
    ann.do("rerun", id_, "x")
    rows = bench.query("select action, actor from audit where resource_id = %s order by id", id_)
    assert rows == [(a, "ann") for a in ("pause", "edit", "skip", "resume", "cancel", "rerun")]
    assert {"run.paused", "run.edited", "run.skipping", "run.resumed", "run.cancelled", "run.rerun"} <= set(
        bench.types(id_)
    )


# --- rerun -----------------------------------------------------------------------------------------------


def test_a_rerun_calls_under_fresh_keys_only_what_runs_again(bench: Bench, ann: Person) -> None:
    id_ = bench.start(bench.define([service("a"), service("b"), service("c")], flow="sequential"))
    bench.settle()
    assert ann.do("rerun", id_, "b") == "running"
    bench.settle()
    ann.do("rerun", id_, "c")
    bench.settle()
    assert bench.execution(id_)["status"] == "completed"
    assert paths(bench) == ["a", "b", "c", "b:1", "c:1", "c:3"]
    assert len(set(paths(bench))) == 6


def test_a_rerun_starts_from_the_context_as_it_was_and_as_it_is_edited(bench: Bench, ann: Person) -> None:
    steps = [setting("a", n="${n + 1}"), setting("b", n="${n * 10}"), setting("c", seen="${n}", who="${who}")]
    id_ = bench.start(bench.define(steps, flow="sequential"), {"n": 1, "who": "x", "gone": 1})
    bench.settle()
    assert bench.execution(id_)["output"] == {"n": 20, "seen": 20, "who": "x", "gone": 1}
    ann.do("rerun", id_, "b", {"who": "y", "gone": None})
    bench.settle()
    assert bench.execution(id_)["output"] == {"n": 20, "seen": 20, "who": "y"}
    ann.do("rerun", id_, None, {"n": 5})
    bench.settle()
    assert bench.execution(id_)["output"] == {"n": 60, "seen": 60, "who": "x", "gone": 1}


def test_a_failed_run_can_be_sent_past_what_failed_or_into_a_round_of_a_loop(bench: Bench, ann: Person) -> None:
    bench.services.on_call = lambda r: down(400, retryable=False) if len(bench.services.calls) == 3 else None
    body = [service("q"), setting("n", n="${n + 1}")]
    steps = [{"id": "l", "type": "loop", "config": {"while": "n < 3", "steps": body}}, service("z")]
    id_ = bench.start(bench.define(steps, flow="sequential"), {"n": 0})
    bench.settle()
    assert bench.execution(id_)["status"] == "failed"
    ann.do("rerun", id_, "l[1]/q")
    bench.settle()
    done = bench.execution(id_)
    assert (done["status"], done["output"]["n"]) == ("completed", 3)
    assert paths(bench) == ["l[0]/q", "l[1]/q", "l[2]/q", "l[1]/q:1", "l[2]/q:1", "z:1"]
    with pytest.raises(Invalid):
        ann.do("rerun", id_, "nothing")


def test_a_step_inside_a_branch_is_rerun_with_its_branch(bench: Bench, ann: Person) -> None:
    branches = [{"name": name, "steps": [service(name)]} for name in ("l", "r")]
    steps = [{"id": "p", "type": "parallel", "config": {"branches": branches}}, service("z")]
    id_ = bench.start(bench.define(steps, flow="sequential"))
    bench.settle()
    with pytest.raises(Invalid, match="rerun from 'p'"):
        ann.do("rerun", id_, "r")
    ann.do("rerun", id_, "p")
    bench.settle()
    assert bench.execution(id_)["status"] == "completed"
    assert sorted(paths(bench)) == ["p[l]/l", "p[l]/l:1", "p[r]/r", "p[r]/r:1", "z", "z:1"]


def test_a_rerun_survives_the_death_of_its_worker(bench: Bench, ann: Person) -> None:
    id_ = bench.start(bench.define([service("a"), service("b")], flow="sequential"))
    bench.settle()
    ann.do("rerun", id_, "b")
    bench.services.on_call = lambda request: (_ for _ in ()).throw(KeyboardInterrupt)
    (claim,) = bench.claim()
    with pytest.raises(KeyboardInterrupt):
        bench.runner.run(claim.id, claim.attempt)
    bench.services.on_call = lambda request: None
    bench.lose_leases()
    bench.settle()
    assert bench.execution(id_)["status"] == "completed"
    assert paths(bench) == ["a", "b", "b:1", "b:1"]


def test_a_rerun_that_has_to_wait_for_a_place_has_its_whole_time_from_then_on(bench: Bench, ann: Person) -> None:
    workflow = bench.define([pausing()], timeout=60_000, concurrency={"limit": 1})
    first = bench.start(workflow)
    bench.query("update execution set created_at = created_at - interval '1 day' returning 1")
    ann.do("cancel", first)
    second = bench.start(workflow)
    ann.do("rerun", first, None)
    held = "select state from job where id = %s"
    assert bench.query(held, first) == [("h",)]
    ann.do("cancel", second)
    assert bench.query(held, first) == [("r",)]
    ((left,),) = bench.query("select extract(epoch from deadline - now())::float from execution where id = %s", first)
    assert 0 < left < 65


def test_a_business_key_that_another_run_has_forbids_a_rerun(bench: Bench, ann: Person) -> None:
    workflow = bench.define([pausing()])
    first = bench.start(workflow, business_key="k")
    ann.do("cancel", first)
    bench.start(workflow, business_key="k")
    with pytest.raises(Conflict) as refused:
        ann.do("rerun", first, None)
    assert refused.value.specific_code == "business_key_in_use"
    assert ann.status(first) == "cancelled"


# --- skip ------------------------------------------------------------------------------------------------


def test_a_waiting_run_can_skip_the_step_it_waits_at_and_no_other(bench: Bench, ann: Person) -> None:
    id_ = bench.start(bench.define([pausing("w"), service("b")], flow="sequential"))
    bench.pump()
    with pytest.raises(IllegalTransition):
        ann.do("skip", id_, "b")
    with pytest.raises(Invalid):
        ann.do("skip", id_, "zz")
    assert ann.do("skip", id_, "w") == "running"
    bench.settle()
    assert bench.execution(id_)["status"] == "completed"
    assert "step.skipped w" in bench.types(id_) and paths(bench) == ["b"]
    for state in ("completed", "pending", "cancelled", "timed_out"):
        with pytest.raises((IllegalTransition, Invalid)):
            ann.do("skip", in_state(bench, ann, state), "a")


def test_a_failed_run_can_skip_the_step_that_failed(bench: Bench, ann: Person) -> None:
    bench.services.replies["svc/bad"] = [down(400, retryable=False)]
    id_ = bench.start(bench.define([service("a"), service("b", method="bad"), service("c")], flow="sequential"))
    bench.settle()
    with pytest.raises(IllegalTransition):
        ann.do("skip", id_, "c")
    ann.do("skip", id_, "b")
    bench.settle()
    assert bench.execution(id_)["status"] == "completed"
    assert paths(bench) == ["a", "b", "c"]


def test_a_step_that_failed_in_a_branch_is_skipped_when_its_branch_comes_to_it(bench: Bench, ann: Person) -> None:
    bench.services.on_call = lambda r: down(400, retryable=False) if r.path == "bad" else None
    branches = [{"name": "x", "steps": [service("x", method="bad"), service("y")]}]
    id_ = bench.start(bench.define([{"id": "p", "type": "parallel", "config": {"branches": branches}}]))
    bench.settle()
    assert bench.execution(id_)["status"] == "failed"
    ann.do("skip", id_, "x")
    bench.settle()
    assert bench.execution(id_)["status"] == "completed"
    assert "step.skipped p[x]/x" in bench.types(id_) and paths(bench) == ["p[x]/x", "p[x]/y"]


def test_a_paused_run_skips_where_it_stands_and_what_lies_ahead(bench: Bench, ann: Person) -> None:
    id_ = bench.start(bench.define([pausing("w"), service("b"), service("c")], flow="sequential"))
    bench.pump()
    ann.do("pause", id_)
    ann.do("skip", id_, "c")
    assert ann.do("skip", id_, "w") == "paused"
    assert "step.skipped w" in bench.types(id_), "it is skipped in the transaction that says so"
    bench.pump()
    assert paths(bench) == []
    ann.do("resume", id_)
    bench.settle()
    assert bench.execution(id_)["status"] == "completed"
    assert paths(bench) == ["b"] and "step.skipped c" in bench.types(id_)


def test_skipping_a_step_with_branches_stops_them(bench: Bench, ann: Person) -> None:
    branches = [{"name": "x", "steps": [pausing("x")]}, {"name": "y", "steps": [pausing("y")]}]
    steps = [{"id": "p", "type": "parallel", "config": {"branches": branches}}, service("z")]
    id_ = bench.start(bench.define(steps, flow="sequential"))
    bench.pump()
    ann.do("skip", id_, "p")
    bench.settle()
    assert bench.execution(id_)["status"] == "completed" and paths(bench) == ["z"]
    assert bench.query("select count(*) from job") == [(0,)]


def test_one_branch_skips_while_another_waits_on(bench: Bench, ann: Person) -> None:
    branches = [{"name": "x", "steps": [pausing("x"), service("q")]}, {"name": "y", "steps": [pausing("y")]}]
    id_ = bench.start(bench.define([{"id": "p", "type": "parallel", "config": {"branches": branches}}]))
    bench.pump()
    ann.do("skip", id_, "p[x]/x")
    bench.pump()
    assert ann.status(id_) == "waiting" and paths(bench) == ["p[x]/q"]
    ann.do("skip", id_, "y")
    bench.settle()
    assert bench.execution(id_)["status"] == "completed"


def test_skipping_a_sub_workflow_cancels_its_run(bench: Bench, ann: Person) -> None:
    bench.define([pausing()], name="child")
    steps = [{"id": "s", "type": "sub_workflow", "config": {"workflowName": "child"}}, service("z")]
    id_ = bench.start(bench.define(steps, flow="sequential"))
    bench.pump()
    ann.do("skip", id_, "s")
    bench.settle()
    assert bench.execution(id_)["status"] == "completed"
    assert bench.query("select status from execution where id <> %s", id_) == [("cancelled",)]


# --- edit ------------------------------------------------------------------------------------------------


def test_the_context_of_a_paused_run_can_be_edited(bench: Bench, ann: Person) -> None:
    id_ = bench.start(
        bench.define([pausing(), setting("x", seen="${a.b}")], flow="sequential"), {"a": {"b": 1}, "z": 0}
    )
    bench.pump()
    ann.do("pause", id_)
    ann.do("edit", id_, {"a": {"b": 2}, "z": None})
    ann.do("skip", id_, "w")
    ann.do("resume", id_)
    bench.settle()
    assert bench.execution(id_)["output"] == {"a": {"b": 2}, "seen": 2}
    with pytest.raises(IllegalTransition):
        ann.do("edit", id_, {})


def test_a_context_that_grows_too_large_is_refused(bench: Bench, ann: Person) -> None:
    id_ = in_state(bench, ann, "paused")
    with pytest.raises(Invalid):
        ann.do("edit", id_, {"x": "y" * (1 << 20)})


# --- cancel with compensation ----------------------------------------------------------------------------


def undoable(id_: str) -> dict[str, Any]:
    undo = {"type": "service_call", "config": {"serviceName": "svc", "method": f"un{id_}", "payload": "${output}"}}
    return service(id_, compensate=undo)


def test_a_run_cancelled_with_compensation_undoes_what_was_completed(bench: Bench, ann: Person) -> None:
    id_ = bench.start(bench.define([undoable("a"), undoable("b"), pausing(), undoable("c")], flow="sequential"))
    bench.pump()
    assert ann.do("cancel", id_, "changed my mind", compensate=True) == "running"
    bench.settle()
    assert paths(bench) == ["a", "b", "b:compensate", "a:compensate"]
    done = bench.execution(id_)
    assert (done["status"], done["error"]["class"]) == ("compensated", "Cancelled")
    assert bench.query("select reason from execution") == [("changed my mind",)]
    assert bench.query("select count(*) from job") == [(0,)]


def test_what_is_undone_waits_for_the_calls_under_way(
    bench: Bench, ann: Person, eventually: Callable[..., None]
) -> None:
    entered, leave = threading.Event(), threading.Event()

    def reply(request: ServiceRequest) -> ServiceReply | None:
        if request.path == "slow":
            entered.set()
            leave.wait(10)
        return Answer(200, {})

    bench.services.on_call = reply
    slow = {**undoable("x"), "config": {"serviceName": "svc", "method": "slow"}}
    branches = [{"name": "x", "steps": [slow]}, {"name": "y", "steps": [undoable("y"), pausing()]}]
    id_ = bench.start(bench.define([{"id": "p", "type": "parallel", "config": {"branches": branches}}]))
    (claim,) = bench.claim()
    bench.runner.run(claim.id, claim.attempt)
    claims = bench.claim()
    threads = [threading.Thread(target=bench.runner.run, args=(c.id, c.attempt)) for c in claims]
    for thread in threads:
        thread.start()
    assert entered.wait(5)
    eventually(lambda: "step.waiting p[y]/w" in bench.types(id_))
    ann.do("cancel", id_, compensate=True)
    bench.pump()
    assert not any(path.endswith("compensate") for path in paths(bench))
    leave.set()
    for thread in threads:
        thread.join(5)
    bench.settle()
    assert bench.execution(id_)["status"] == "compensated"
    assert sorted(paths(bench)[2:]) == ["p[x]/x:compensate", "p[y]/y:compensate"]


def test_a_run_cancelled_before_it_began_has_nothing_to_undo(bench: Bench, ann: Person) -> None:
    id_ = bench.start(bench.define([undoable("a")]))
    ann.do("cancel", id_, compensate=True)
    bench.settle()
    assert bench.execution(id_)["status"] == "compensated" and paths(bench) == []


def test_cancelling_with_compensation_goes_down_to_the_runs_waited_for(bench: Bench, ann: Person) -> None:
    bench.define([undoable("inner"), pausing()], name="child", flow="sequential")
    sub = {"id": "s", "type": "sub_workflow", "config": {"workflowName": "child"}}
    id_ = bench.start(bench.define([undoable("outer"), sub], flow="sequential"))
    bench.pump()
    ann.do("cancel", id_, compensate=True)
    bench.settle()
    assert bench.query("select distinct status from execution") == [("compensated",)]
    assert [p for p in paths(bench) if p.endswith("compensate")] == ["inner:compensate", "outer:compensate"]


def test_a_pause_holds_up_the_undoing_too(bench: Bench, ann: Person) -> None:
    id_ = bench.start(bench.define([undoable("a"), pausing()], flow="sequential"))
    bench.pump()
    ann.do("cancel", id_, compensate=True)
    assert ann.do("pause", id_) == "paused"
    bench.pump()
    assert paths(bench) == ["a"]
    ann.do("resume", id_)
    bench.settle()
    assert paths(bench) == ["a", "a:compensate"] and bench.execution(id_)["status"] == "compensated"


@pytest.mark.parametrize("n", range(1, 14))
def test_the_undoing_survives_a_death_at_any_statement(bench: Bench, ann: Person, n: int) -> None:
    from tests.integration.orchestration.test_workflow_recovery import Died, MortalDatabase

    id_ = bench.start(bench.define([undoable("a"), undoable("b"), pausing()], flow="sequential"))
    bench.pump()
    ann.do("cancel", id_, compensate=True)
    whole = bench.runner
    bench.runner = type(whole)(
        MortalDatabase(bench.database, n, after=n % 2 == 0),  # type: ignore[arg-type]
        bench.programs, bench.services, bench.messages, random=lambda: 0.0,
    )  # fmt: skip
    try:
        bench.settle()
    except Died:
        bench.runner = whole
        bench.lose_leases()
        bench.settle()
    assert bench.execution(id_)["status"] == "compensated"
    assert list(dict.fromkeys(paths(bench))) == ["a", "b", "b:compensate", "a:compensate"]
    assert bench.query("select path, count(*) from event where type = 'step.compensated' group by 1 order by 1") == [
        ("a:compensate", 1), ("b:compensate", 1),
    ]  # fmt: skip


def test_what_was_undone_once_is_not_undone_again_after_a_rerun(bench: Bench, ann: Person) -> None:
    id_ = bench.start(bench.define([undoable("a"), undoable("b"), pausing()], flow="sequential"))
    bench.pump()
    ann.do("cancel", id_, compensate=True)
    bench.settle()
    bench.services.calls.clear()
    ann.do("rerun", id_, "b")
    bench.pump()
    ann.do("cancel", id_, compensate=True)
    bench.settle()
    assert paths(bench) == ["b:1", "b:compensate:1"]


def test_a_run_whose_waiting_parent_was_cancelled_is_cancelled_even_if_nobody_was_there_to_do_it(
    bench: Bench, ann: Person
) -> None:
    bench.define([pausing()], name="child")
    id_ = bench.start(bench.define([{"id": "s", "type": "sub_workflow", "config": {"workflowName": "child"}}]))
    bench.pump()
    with bench.database.cursor() as cursor:  # as if the process died right after the commit
        cursor.execute("select esb_run_cancel(%s, null, false, '{}')", (id_,))
    assert cancel_orphans(bench.database) == 1
    assert bench.query("select distinct status from execution") == [("cancelled",)]
