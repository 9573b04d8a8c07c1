"""Definitions: what is refused, where the fault is said to be, and that all faults are named at once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esb_workers.errors import Invalid
from esb_workers.expressions.schemas import compile_schema
from esb_workers.orchestration.definition import compile_definition
from esb_workers.orchestration.published import definition_schema


def faults(definition: Any) -> dict[str, str]:
    """Path → message of every fault."""
    with pytest.raises(Invalid) as caught:
        compile_definition(definition)
    return {fault.path: fault.message for fault in caught.value.errors}


def log(id_: str, **over: Any) -> dict[str, Any]:
    return {"id": id_, "type": "log", "config": {"message": "m"}, **over}


def wait(id_: str, **over: Any) -> dict[str, Any]:
    return {"id": id_, "type": "wait", "config": {"duration": 1}, **over}


def test_the_first_step_starts_and_on_success_leads_on() -> None:
    program = compile_definition({"steps": [log("a", onSuccess="b"), log("b")]})
    assert program.top.first == "a"
    assert [program.steps[name].next for name in ("a", "b")] == ["b", None]


def test_in_sequential_flow_list_order_is_the_order() -> None:
    program = compile_definition(
        {"steps": [log("a", onSuccess="c", onFailure="b"), log("b"), log("c")], "flow": "sequential"}
    )
    assert [program.steps[name].next for name in ("a", "b", "c")] == ["c", "c", None]


@pytest.mark.parametrize(
    ("steps", "path", "said"),
    [
        ([log("a", onSuccess="x")], "definition.steps[0].onSuccess", "no step 'x'"),
        ([log("a", onFailure="x")], "definition.steps[0].onFailure", "no step 'x'"),
        ([log("a", catch=[{"errors": ["*"], "next": "x"}])], "definition.steps[0].catch[0].next", "no step 'x'"),
        ([log("a"), log("b")], "definition.steps[1]", "never reached"),
        ([log("a", onSuccess="a")], "definition.steps[0].onSuccess", "cycle without a wait or a bound: a → a"),
        ([log("a", onSuccess="b"), log("b", onSuccess="a")], "definition.steps[1].onSuccess", "a → b → a"),
        ([log("a", onSuccess="b"), log("b", catch=[{"errors": ["*"], "next": "a"}])], "definition.steps[1].catch[0].next", "a → b → a"),
        ([log("a", condition="1 +")], "definition.steps[0].condition", "Syntax error"),
        ([log("a", condition=True)], "definition.steps[0].condition", "string"),
        ([log("a", config={"message": "x ${"})], "definition.steps[0].config.message", "never closed"),
        ([log("a", config={"message": "m", "level": "loud"})], "definition.steps[0].config.level", ""),
        ([log("a", config={"text": "m"})], "definition.steps[0].config.text", "not a known field"),
        ([log("a", retryPolicy={"maxRetries": -1})], "definition.steps[0].retryPolicy.maxRetries", ""),
        ([log("a", retryPolicy={"backoffStrategy": "random"})], "definition.steps[0].retryPolicy.backoffStrategy", ""),
        ([log("a", timeout=0)], "definition.steps[0].timeout", ""),
        ([log("a", colour="red")], "definition.steps[0].colour", "not a known field"),
        ([log("a b")], "definition.steps[0].id", ""),
        ([{"id": "a"}], "definition.steps[0].type", "required"),
        (["a"], "definition.steps[0]", ""),
        ([{"id": "a", "type": "teleport"}], "definition.steps[0].type", "unknown step type 'teleport'"),
        ([{"id": "a", "type": "wait", "config": {}}], "definition.steps[0].config", "either duration or until"),
        ([{"id": "a", "type": "wait", "config": {"until": "tomorrow"}}], "definition.steps[0].config.until", "RFC 3339"),
        ([{"id": "a", "type": "switch", "config": {"cases": [{"when": "true", "next": "x"}]}}], "definition.steps[0].config.cases[0].next", "no step 'x'"),
        ([{"id": "a", "type": "switch", "config": {"cases": []}}], "definition.steps[0].config.cases", ""),
        ([{"id": "a", "type": "parallel", "config": {"branches": [{"name": "l", "steps": [log("q")]}], "join": 2}}], "definition.steps[0].config.join", "only 1"),
        ([{"id": "a", "type": "loop", "config": {"steps": [log("q")]}}], "definition.steps[0].config", "either while or until"),
        ([{"id": "a", "type": "service_call", "config": {"serviceName": "s"}}], "definition.steps[0].config", "method or path"),
        ([{"id": "a", "type": "publish", "config": {"messageType": "a..b"}}], "definition.steps[0].config.messageType", "words"),
        ([log("a", compensate={"type": "wait", "config": {"duration": 1}})], "definition.steps[0].compensate.type", "cannot compensate"),
        ([], "definition.steps", ""),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_path(steps: list[Any], path: str, said: str) -> None:
    found = faults({"steps": steps})
    assert path in found, found
    assert said in found[path]


def test_a_definition_is_durable_to_the_letter_unless_it_says_otherwise() -> None:
    assert not compile_definition({"steps": [log("a")]}).relaxed
    assert not compile_definition({"steps": [log("a")], "durability": "strict"}).relaxed
    assert compile_definition({"steps": [log("a")], "durability": "relaxed"}).relaxed
    for wrong in ("lax", "", None, True):
        found = faults({"steps": [log("a")], "durability": wrong})
        assert "strict" in found["definition.durability"], "it says what there is"


def test_a_cycle_through_a_wait_is_allowed() -> None:
    compile_definition({"steps": [log("a", onSuccess="w"), wait("w", onSuccess="a")]})


def test_ids_are_unique_in_the_whole_definition_and_jumps_stay_in_their_list() -> None:
    inner = {"id": "p", "type": "parallel", "config": {"branches": [{"name": "l", "steps": [log("a", onSuccess="b")]}]}}
    found = faults({"steps": [log("a", onSuccess="p"), {**inner, "onSuccess": "b"}, log("b")]})
    assert "already the id of" in found["definition.steps[1].config.branches[0].steps[0].id"]
    assert "no step 'b'" in found["definition.steps[1].config.branches[0].steps[0].onSuccess"]


def test_a_schedule_is_exact_unless_jitter_is_asked_for() -> None:
    def delay(**policy: Any) -> int:
        made = compile_definition({"steps": [log("a", retryPolicy=policy)]}).steps["a"].retry
        assert made is not None
        return made.delay(1, lambda: 0.5)

    assert delay(schedule=[1000]) == 1000
    assert delay(schedule=[1000], jitter=0.2) == 1100
    assert delay(initialDelay=1000) == 1100


def test_all_faults_are_named_at_once() -> None:
    definition = {
        "steps": [log("a", onSuccess="x", condition="("), {"id": "b", "type": "?"}],
        "errorHandling": {"onError": "z", "retryPolicy": {"maxRetries": "3"}},
        "timeout": -1,
        "flavour": 1,
    }
    assert set(faults(definition)) == {
        "definition.steps[0].onSuccess",
        "definition.steps[0].condition",
        "definition.steps[1].type",
        "definition.errorHandling.onError",
        "definition.errorHandling.retryPolicy.maxRetries",
        "definition.timeout",
        "definition.flavour",
    }


def test_a_step_with_a_fault_does_not_put_the_blame_on_others() -> None:
    found = faults(
        {"steps": [{"id": "a", "type": "switch", "config": {"cases": [{"when": "(", "next": "b"}], "x": 1}}, log("b")]}
    )
    assert set(found) == {"definition.steps[0].config.x"}


def test_on_error_may_be_a_step_that_nothing_else_leads_to() -> None:
    program = compile_definition({"steps": [log("a"), log("handler")], "errorHandling": {"onError": "handler"}})
    assert program.on_error == "handler"


def test_nesting_has_a_limit() -> None:
    step = log("leaf")
    for depth in range(12):
        step = {"id": f"l{depth}", "type": "loop", "config": {"while": "true", "steps": [step]}}
    assert any("nested deeper" in message for message in faults({"steps": [step]}).values())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "type", "config", "steps", "x"]), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip
names = st.sampled_from(
    ["id", "type", "config", "onSuccess", "catch", "retryPolicy", "timeout", "condition", "compensate", "steps"]
)


@given(
    st.lists(st.dictionaries(names, json_values | st.sampled_from(["a", "b", "log", "wait", "parallel", "loop"]), max_size=6) | json_values, max_size=4),
    st.dictionaries(st.sampled_from(["variables", "errorHandling", "timeout", "flow", "inputSchema", "output"]), json_values, max_size=2),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_whatever_is_sent_is_compiled_or_refused_with_paths(steps: list[Any], more: dict[str, Any]) -> None:
    try:
        compile_definition({"steps": steps, **more})
    except Invalid as error:
        assert error.errors and all(fault.path.startswith("definition") and fault.message for fault in error.errors)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
@settings(max_examples=50, deadline=None)
def test_a_definition_may_be_any_json(raw: Any) -> None:
    with pytest.raises(Invalid):
        compile_definition(raw)


@pytest.mark.parametrize(
    "step",
    [
        {"id": "a", "type": "no-such"},
        {"id": "a", "type": "service_call"},
        {"id": "a", "type": "service_call", "config": {"serviceName": "s"}},
        {"id": "a", "type": "wait", "config": {"duration": 1, "until": "2026-01-01T00:00:00Z"}},
        {"id": "a", "type": "log", "config": {"message": "m", "colour": "red"}},
        {"id": "a", "type": "log", "config": {"message": "m"}, "retryPolicy": {"maxRetries": -1}},
        {"id": "a", "type": "loop", "config": {"while": "true", "steps": [{"id": "b", "type": "log"}]}},
        {"id": "a", "type": "log", "config": {"message": "m"}, "compensate": {"type": "switch", "config": {}}},
    ],
)
def test_the_published_schema_refuses_what_the_compiler_refuses(step: dict[str, Any]) -> None:
    definition = {"steps": [step]}
    assert compile_schema(definition_schema(), "").faults(definition) != []
    with pytest.raises(Invalid):
        compile_definition(definition)
