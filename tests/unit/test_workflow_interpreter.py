"""The engine's decisions against a small reference interpreter, over random definitions; and replay against both.

No database: trials, which run the engine's own interpreter over mocked services. What is compared is what a run comes
to, and that its state after any prefix of the journal, written down and read again, leads to the same end.
"""

from __future__ import annotations

import copy
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esb_workers.expressions.schemas import compile_schema
from esb_workers.orchestration import state as states
from esb_workers.orchestration.definition import compile_definition
from esb_workers.orchestration.failures import Failure
from esb_workers.orchestration.flow import Handled, Retry, Unhandled, after_failure
from esb_workers.orchestration.published import definition_schema
from esb_workers.orchestration.state import Event, State
from esb_workers.orchestration.trial.mocks import Mock, Mocks
from esb_workers.orchestration.trial.run import RUN_ID, Plan, Trial, try_out

SCHEMA = compile_schema(definition_schema(), "schema")
#: What a service is made to answer.
ANSWERS = {
    "ok": Mock(output={"called": True}),
    "503": Mock(error="HttpStatus.503"),
    "409": Mock(error="HttpStatus.409"),
}


def carry_out(definition: dict[str, Any], given: dict[str, Any], answers: list[str] | None = None) -> Trial:
    program = compile_definition(definition)
    mocks = Mocks({id_: [ANSWERS[a] for a in answers or ["ok"]] for id_, s in program.steps.items() if s.kind.effect})
    return try_out(program, Plan(given, mocks))


class _End(Exception):
    pass


class _Fail(Exception):
    pass


class Reference:
    """What `semantics` says, as plainly as it can be written. Knows the few forms that `steps` below generates."""

    def __init__(self, context: dict[str, Any], on_error: str, answers: list[str]) -> None:
        self.context = context
        self.on_error = on_error
        self.answers = answers
        self.calls: Counter[str] = Counter()  # shared by copies

    def copy(self) -> Reference:
        other = Reference(copy.deepcopy(self.context), self.on_error, self.answers)
        other.calls = self.calls
        return other

    def run(self, steps: list[Any]) -> tuple[str, Any, Any]:
        try:
            self.steps(steps)
        except _Fail as failed:
            return "failed", None, str(failed)
        except _End as end:
            return "completed", end.args[0], None
        return "completed", self.context, None

    def inner(self, steps: list[Any]) -> Any:
        """A branch, item or round: the output of the last step that ran in it."""
        try:
            return self.steps(steps)
        except _End as end:
            return end.args[0]

    def steps(self, steps: list[Any]) -> Any:
        index, last = 0, None
        while index < len(steps):
            step, target = steps[index], None
            if step.get("condition", "true") == "true":
                try:
                    target, last = self.step(step)
                except _Fail as failed:
                    target, last = self.handler(step, str(failed)), None
            index = index + 1 if target is None else next(i for i, s in enumerate(steps) if s["id"] == target)
        return last

    def handler(self, step: dict[str, Any], error: str) -> str | None:
        for catch in step.get("catch", []):
            if {error, "*"} & set(catch["errors"]) or (
                error.startswith("Http") and "HttpStatus.4xx" in catch["errors"] and error[11] == "4"
            ):
                return str(catch["next"])
        if "onFailure" in step:
            return str(step["onFailure"])
        if self.on_error == "continue" and step["type"] != "fail":
            return None
        raise _Fail(error)

    def step(self, step: dict[str, Any]) -> tuple[str | None, Any]:
        """(where it leads, None: on; its output)."""
        config = step["config"]
        match step["type"]:
            case "set":
                self.context["n"] += config["variables"]["n"].count("+ 1")
                return None, {"n": self.context["n"]}
            case "switch":
                target = str(config["cases"][0]["next"] if self.context["n"] % 2 == 0 else config["default"])
                return target, {"next": target}
            case "fail":
                raise _Fail(config["error"])
            case "succeed":
                raise _End(self.context["n"])
            case "service_call":
                return None, self.call(step)
            case "loop":
                return None, self.loop(config)
            case "foreach":
                return None, self.foreach(config)
            case _:
                return None, self.parallel(config)

    def call(self, step: dict[str, Any]) -> Any:
        for _ in range(1 + step.get("retryPolicy", {"maxRetries": 0})["maxRetries"]):
            answer = self.answers[min(self.calls[step["id"]], len(self.answers) - 1)]
            self.calls[step["id"]] += 1
            if answer == "ok":
                self.context["called"] = True
                return {"called": True}
            if answer == "409":
                break
        raise _Fail(f"HttpStatus.{answer}")

    def loop(self, config: dict[str, Any]) -> Any:
        bound = int(config["while"].split("<")[1])
        rounds, last = 0, None
        while self.context["n"] < bound:
            if rounds >= config["maxIterations"]:
                raise _Fail("LoopLimit")
            rounds += 1
            last = self.inner(config["steps"])
        return last

    def foreach(self, config: dict[str, Any]) -> Any:
        outputs, failed = [], 0
        for _ in config["items"]:
            try:
                outputs.append(self.copy().inner(config["steps"]))
            except _Fail as error:
                outputs.append({"error": str(error)})
                failed += 1
                if failed > int(config["toleratedFailures"].rstrip("%")) * len(config["items"]) // 100:
                    raise _Fail("ToleranceExceeded") from None
        self.context[config["resultPath"]] = outputs
        return outputs

    def parallel(self, config: dict[str, Any]) -> Any:
        outputs, errors = {}, []
        for branch in config["branches"]:
            try:
                outputs[branch["name"]] = self.copy().inner(branch["steps"])
            except _Fail as error:
                errors.append(error)
        need = {"all": len(config["branches"]), "any": 1}.get(config["join"], config["join"])
        if len(outputs) < need:
            raise errors[0]
        self.context[config["resultPath"]] = outputs
        return outputs


@st.composite
def lists_of_steps(draw: st.DrawFn, depth: int = 0, prefix: str = "s", waits: bool = True) -> list[Any]:
    """Sequential lists; all jumps lead forward. Without `waits`, none of its steps waits for children of its own."""
    count = draw(st.integers(1, 5 - depth))
    ids = [f"{prefix}{i}" for i in range(count)]
    return [draw(steps(ids, i, depth, waits)) for i in range(count)]


@st.composite
def steps(draw: st.DrawFn, ids: list[str], at: int, depth: int, waits: bool) -> dict[str, Any]:
    later = ids[at + 1 :]
    kinds = ["set", "set", "fail", "succeed", "service_call", "service_call"] + (["switch"] if later else [])
    made_of_steps = ["loop", "foreach", "parallel"] if waits else ["loop"]
    kind = draw(st.sampled_from(kinds + (made_of_steps if depth < 2 else [])))
    step: dict[str, Any] = {"id": ids[at], "type": kind, "config": _config(draw, kind, ids[at], later, depth, waits)}
    if draw(st.integers(0, 4)) == 0:
        step["condition"] = draw(st.sampled_from(["true", "false"]))
    if kind == "service_call" and draw(st.booleans()):
        step["retryPolicy"] = {"maxRetries": draw(st.integers(0, 3)), "initialDelay": 0}
    if later and draw(st.booleans()):
        classes = [["*"], ["Oops"], ["LoopLimit"], ["HttpStatus.4xx"], ["HttpStatus.503", "ToleranceExceeded"]]
        step["catch"] = [{"errors": draw(st.sampled_from(classes)), "next": draw(st.sampled_from(later))}]
    if later and draw(st.integers(0, 3)) == 0:
        step["onFailure"] = draw(st.sampled_from(later))
    return step


def _config(draw: st.DrawFn, kind: str, id_: str, later: list[str], depth: int, waits: bool) -> dict[str, Any]:
    def inner(mark: str, waits: bool = waits) -> list[Any]:
        return draw(lists_of_steps(depth + 1, f"{id_}{mark}", waits))

    match kind:
        case "set":
            return {"variables": {"n": "${n" + " + 1" * draw(st.integers(0, 3)) + "}"}}
        case "switch":
            cases = [{"when": "n % 2 == 0", "next": draw(st.sampled_from(later))}]
            return {"cases": cases, "default": draw(st.sampled_from(later))}
        case "fail":
            return {"error": draw(st.sampled_from(["Oops", "Other"]))}
        case "succeed":
            return {"output": "${n}"}
        case "service_call":
            return {"serviceName": "svc", "method": "op", "payload": {"n": "${n}"}}
        case "loop":
            bound, most = draw(st.integers(0, 9)), draw(st.integers(1, 4))
            return {"while": f"n < {bound}", "maxIterations": most, "steps": inner("x")}
        case "foreach":
            tolerated, runners = draw(st.sampled_from(["0%", "34%", "100%"])), draw(st.integers(1, 3))
            items = list(range(draw(st.integers(0, 3))))
            return {
                "items": items, "steps": inner("x"), "toleratedFailures": tolerated, "maxConcurrency": runners, "resultPath": f"r{id_}",
            }  # fmt: skip
        case _:
            names = "ab"[: draw(st.integers(1, 2))]
            join = draw(st.sampled_from(["all", "any", len(names)]))
            # Which of several branches are in time is a race that the reference does not run: all but the last come
            # to their end at once, and the last one waits only where it is waited for.
            quick = [*names[:-1], *(names[-1:] if join == "any" and len(names) > 1 else "")]
            branches = [{"name": name, "steps": inner(name, waits and name not in quick)} for name in names]
            return {"branches": branches, "join": join, "resultPath": f"r{id_}"}


@st.composite
def definitions(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "steps": draw(lists_of_steps()),
        "flow": "sequential",
        "errorHandling": {"onError": draw(st.sampled_from(["fail", "log-error", "continue"]))},
    }


def reachable(definition: dict[str, Any]) -> bool:
    """Random jumps leave steps that nothing leads to; such definitions are refused."""
    try:
        compile_definition(definition)
    except Exception:
        return False
    return True


def _plain(value: Any) -> Any:
    """An error as its class: what else stands in it the reference does not know."""
    if isinstance(value, dict):
        if set(value) == {"error"} and isinstance(value["error"], dict):
            return {"error": value["error"]["class"]}
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


@given(
    definitions().filter(reachable),
    st.integers(0, 5),
    st.lists(st.sampled_from(["ok", "503", "409"]), min_size=1, max_size=5),
)
@settings(max_examples=400, deadline=None)
def test_a_run_comes_to_what_the_reference_says(definition: dict[str, Any], n: int, answers: list[str]) -> None:
    trial = carry_out(definition, {"n": n}, answers)
    said = Reference({"n": n}, definition["errorHandling"]["onError"], answers).run(definition["steps"])
    assert (trial.status, _plain(trial.output), trial.error and trial.error["class"]) == said


@pytest.mark.parametrize("waiting", ["a", "b"])
def test_a_branch_that_waits_for_its_own_children_is_not_in_time_for_any(waiting: str) -> None:
    counts = {"type": "set", "config": {"variables": {"n": "${n + 1}"}}}
    items = {"type": "foreach", "config": {"items": [1], "steps": [{"id": "x", **counts}]}}
    branches = [{"name": name, "steps": [{"id": name, **(items if name == waiting else counts)}]} for name in "ab"]
    config = {"branches": branches, "join": "any", "resultPath": "r"}
    trial = carry_out({"steps": [{"id": "p", "type": "parallel", "config": config}]}, {"n": 0})
    (quick,) = {"a", "b"} - {waiting}
    assert (trial.status, trial.output) == ("completed", {"n": 0, "r": {quick: {"n": 1}}})


@given(definitions().filter(reachable), st.data())
@settings(max_examples=150, deadline=None)
def test_any_prefix_of_the_journal_written_down_leads_to_the_same_end(
    definition: dict[str, Any], data: st.DataObject
) -> None:
    trial = carry_out(definition, {"n": 0})
    journal = [
        Event(r.n, r.type, r.path, r.visit, r.iteration, orjson.loads(r.data or "{}")) for r in trial.rows if r.job_id == RUN_ID
    ]  # fmt: skip
    cut = data.draw(st.integers(0, len(journal)))
    before = states.replay(_fresh(definition), journal[:cut])
    after = states.replay(states.load(states.dump(before)), journal[cut:])
    assert _told(after) == _told(states.replay(_fresh(definition), journal))
    assert after.context == trial.context


@given(definitions().filter(reachable))
@settings(max_examples=60, deadline=None)
def test_what_the_compiler_takes_the_published_schema_takes_too(definition: dict[str, Any]) -> None:
    assert SCHEMA.faults(definition) == []


def _fresh(definition: dict[str, Any]) -> State:
    return states.start(definition["steps"][0]["id"], {"n": 0})


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
