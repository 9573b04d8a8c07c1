"""The engine's decisions against a small reference interpreter, over random definitions; and replay against both.

No database: a strand that keeps its journal in memory. What is compared is what a run comes to, and that its state
after any prefix of the journal, written down and read again, leads to the same end.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from esb_workers.orchestration import state as states
from esb_workers.orchestration.advance import Advance, Tools
from esb_workers.orchestration.definition import compile_definition
from esb_workers.orchestration.failures import Failure
from esb_workers.orchestration.flow import Handled, Retry, Unhandled, after_failure
from esb_workers.orchestration.model import Program
from esb_workers.orchestration.programs import Workflow
from esb_workers.orchestration.state import Event, State
from esb_workers.orchestration.strand import Strand
from esb_workers.store.executions import Loaded, StrandKey
from esb_workers.store.json import dumps


class MemoryStrand(Strand):
    """A root strand that writes to a list."""

    def __init__(self, program: Program, given: dict[str, Any]) -> None:
        now = datetime(2026, 1, 1, tzinfo=UTC)
        loaded = Loaded(
            now, None, 0, None, None, None, "x", "w", None, False, "open", "c", None, dumps(given), None, None, 0, None, None, None, [],
        )  # fmt: skip
        super().__init__(None, StrandKey("x", 1), loaded, program)  # type: ignore[arg-type]
        self.journal: list[Event] = []
        self.ended: tuple[str, Any, Any] | None = None

    def emit(self, type_: str, path: str | None = None, **data: Any) -> None:  # type: ignore[override]
        super().emit(type_, path, **data)
        row = self.buffer[-1]
        self.journal.append(
            Event(self.n - 1, row.type, row.path, row.visit, row.iteration, orjson.loads(row.data or "{}"))
        )

    def flush(self, **_: Any) -> None:
        self.buffer.clear()

    def finish(self, status: str, *, output: Any = None, error: Any = None) -> str:
        self.ended = status, output, error and error["class"]
        return "ok"


def carry_out(definition: dict[str, Any], given: dict[str, Any]) -> MemoryStrand:
    program = compile_definition(definition)
    strand = MemoryStrand(program, given)
    tools = Tools(None, None, None, None, random=lambda: 0.0)  # type: ignore[arg-type]
    Advance(tools, strand, Workflow("w", "w", "1.0.0", 1, program)).go()
    return strand


class _End(Exception):
    pass


class _Fail(Exception):
    pass


class Reference:
    """What `semantics` says, as plainly as it can be written. Knows the few forms that `steps` below generates."""

    def __init__(self, context: dict[str, Any]) -> None:
        self.context = context

    def run(self, steps: list[Any]) -> tuple[str, Any, Any]:
        try:
            self.steps(steps)
        except _Fail as failed:
            return "failed", None, str(failed)
        except _End as end:
            return "completed", end.args[0], None
        return "completed", self.context, None

    def steps(self, steps: list[Any], top: bool = True) -> None:
        index = 0
        while index < len(steps):
            step = steps[index]
            try:
                target = self.step(step, top) if step.get("condition", "true") == "true" else None
            except _Fail as failed:
                wanted = [c for c in step.get("catch", []) if str(failed) in c["errors"] or "*" in c["errors"]]
                if not wanted:
                    raise
                target = wanted[0]["next"]
            index = index + 1 if target is None else next(i for i, s in enumerate(steps) if s["id"] == target)

    def step(self, step: dict[str, Any], top: bool) -> str | None:
        config = step["config"]
        match step["type"]:
            case "set":
                self.context["n"] += config["variables"]["n"].count("+ 1")
            case "switch":
                even = self.context["n"] % 2 == 0
                return str(config["cases"][0]["next"] if even else config["default"])
            case "fail":
                raise _Fail(config["error"])
            case "succeed":
                raise _End(self.context["n"])
            case "loop":
                self.loop(config)
        return None

    def loop(self, config: dict[str, Any]) -> None:
        bound = int(config["while"].split("<")[1])
        rounds = 0
        while self.context["n"] < bound:
            if rounds >= config["maxIterations"]:
                raise _Fail("LoopLimit")
            rounds += 1
            try:
                self.steps(config["steps"], top=False)
            except _End:
                pass


@st.composite
def lists_of_steps(draw: st.DrawFn, depth: int = 0, prefix: str = "s") -> list[Any]:
    """Sequential lists; all jumps lead forward."""
    count = draw(st.integers(1, 5))
    ids = [f"{prefix}{i}" for i in range(count)]
    return [draw(steps(ids, i, depth)) for i in range(count)]


@st.composite
def steps(draw: st.DrawFn, ids: list[str], at: int, depth: int) -> dict[str, Any]:
    later = ids[at + 1 :]
    kinds = ["set", "set", "fail", "succeed"] + (["switch"] if later else []) + (["loop"] if depth < 2 else [])
    kind = draw(st.sampled_from(kinds))
    step: dict[str, Any] = {"id": ids[at], "type": kind, "config": _config(draw, kind, ids[at], later, depth)}
    if draw(st.integers(0, 4)) == 0:
        step["condition"] = draw(st.sampled_from(["true", "false"]))
    if later and draw(st.booleans()):
        errors = draw(st.sampled_from([["*"], ["Oops"], ["LoopLimit"]]))
        step["catch"] = [{"errors": errors, "next": draw(st.sampled_from(later))}]
    return step


def _config(draw: st.DrawFn, kind: str, id_: str, later: list[str], depth: int) -> dict[str, Any]:
    if kind == "set":
        return {"variables": {"n": "${n" + " + 1" * draw(st.integers(0, 3)) + "}"}}
    if kind == "switch":
        cases = [{"when": "n % 2 == 0", "next": draw(st.sampled_from(later))}]
        return {"cases": cases, "default": draw(st.sampled_from(later))}
    if kind == "fail":
        return {"error": draw(st.sampled_from(["Oops", "Other"]))}
    if kind == "succeed":
        return {"output": "${n}"}
    inner = draw(lists_of_steps(depth + 1, f"{id_}x"))
    return {"while": f"n < {draw(st.integers(0, 9))}", "maxIterations": draw(st.integers(1, 4)), "steps": inner}


def reachable(definition: dict[str, Any]) -> bool:
    """Random jumps leave steps that nothing leads to; such definitions are refused."""
    try:
        compile_definition(definition)
    except Exception:
        return False
    return True


@given(lists_of_steps().filter(lambda s: reachable({"steps": s, "flow": "sequential"})), st.integers(0, 5))
@settings(max_examples=250, deadline=None)
def test_a_run_comes_to_what_the_reference_says(steps: list[Any], n: int) -> None:
    strand = carry_out({"steps": steps, "flow": "sequential"}, {"n": n})
    assert strand.ended == Reference({"n": n}).run(steps)


@given(lists_of_steps().filter(lambda s: reachable({"steps": s, "flow": "sequential"})), st.data())
@settings(max_examples=150, deadline=None)
def test_any_prefix_of_the_journal_written_down_leads_to_the_same_end(steps: list[Any], data: st.DataObject) -> None:
    strand = carry_out({"steps": steps, "flow": "sequential"}, {"n": 0})
    cut = data.draw(st.integers(0, len(strand.journal)))
    before = states.replay(_fresh(strand), strand.journal[:cut])
    after = states.replay(states.load(states.dump(before)), strand.journal[cut:])
    assert _told(after) == _told(states.replay(_fresh(strand), strand.journal))


def _fresh(strand: MemoryStrand) -> State:
    return states.start(strand.program.top.first, {**strand.program.variables, **strand.given})


def _told(state: State) -> Any:
    return orjson.loads(states.dump(state))


def test_no_failed_attempt_is_repeated_that_a_delivery_would_not_repeat() -> None:
    step = {"id": "a", "type": "log", "config": {"message": "m"}, "retryPolicy": {"maxRetries": 2, "initialDelay": 100}}
    program = compile_definition({"steps": [{**step, "onFailure": "b"}, {**step, "id": "b"}]})
    transient, final = Failure("HttpStatus.503", "", True), Failure("HttpStatus.400", "", False)
    verdicts = [after_failure(program, program.steps["a"], transient, n, lambda: 0.0) for n in range(3)]
    assert verdicts == [Retry(100), Retry(200), Handled("b", "onFailure")]
    assert after_failure(program, program.steps["b"], final, 0, lambda: 0.0) == Unhandled()
    asked = Failure("HttpStatus.429", "", True, retry_after_ms=9000)
    assert after_failure(program, program.steps["a"], asked, 0, lambda: 0.0) == Retry(9000)


def test_steps_made_of_steps_do_not_inherit_the_definitions_retries() -> None:
    branch = {"name": "l", "steps": [{"id": "q", "type": "log", "config": {"message": "m"}}]}
    program = compile_definition(
        {
            "steps": [{"id": "p", "type": "parallel", "config": {"branches": [branch]}}],
            "errorHandling": {"retryPolicy": {"maxRetries": 5}},
        }
    )
    assert (program.policy(program.steps["p"]).retries, program.policy(program.steps["q"]).retries) == (0, 5)


def test_a_retry_that_is_not_due_yet_rests() -> None:
    from esb_workers.orchestration.flow import Rest, perform
    from esb_workers.orchestration.state import Current

    now = datetime(2026, 1, 1, tzinfo=UTC)
    program = compile_definition({"steps": [{"id": "a", "type": "log", "config": {"message": "m"}}]})
    current = Current(1, attempt=1, failures=1, due="2026-01-01T00:00:01.000Z")
    assert perform(program.steps["a"], "a", current, now) == Rest(now + timedelta(seconds=1))
    again = perform(program.steps["a"], "a", current, now + timedelta(seconds=2))
    assert not isinstance(again, Rest) and (again.attempt, again.resumed) == (2, False)
