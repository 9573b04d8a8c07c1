"""Pictures of definitions and of runs: drawings, and the tree of `esb executions watch`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree as ET

from hypothesis import given, settings

from esb_api.cli import tree
from esb_workers.orchestration import graphs
from esb_workers.orchestration.definition import compile_definition
from tests.unit.test_workflow_interpreter import definitions, reachable

SVG = "{http://www.w3.org/2000/svg}"
NOW = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)


def boxes(svg: str) -> dict[str, tuple[float, float, float, float]]:
    """Step → its rectangle: left, top, right, bottom."""
    found = {}
    for group in ET.fromstring(svg).iter(f"{SVG}g"):
        title, box = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        assert title is not None and title.text and box is not None
        x, y, width, height = (float(box.attrib[name]) for name in ("x", "y", "width", "height"))
        found[title.text.split(" ")[0]] = x, y, x + width, y + height
    return found


@given(definitions().filter(reachable))
@settings(max_examples=60, deadline=None)
def test_every_step_is_drawn_within_the_picture_and_over_no_other_but_the_one_it_stands_in(
    definition: dict[str, Any],
) -> None:
    program = compile_definition(definition)
    svg = graphs.as_svg(program)
    found = boxes(svg)
    assert set(found) == set(program.steps)
    parents = {node["id"]: node["parent"] for node in graphs.as_data(program)["nodes"]}
    size = ET.fromstring(svg).attrib
    for name, (left, top, right, bottom) in found.items():
        assert left >= 0 and top >= 0 and right <= float(size["width"]) and bottom <= float(size["height"])
        if (parent := parents[name]) is not None:
            outer = found[parent]
            assert outer[0] < left and outer[1] < top and right < outer[2] and bottom < outer[3]
        for other, (l2, t2, r2, b2) in found.items():
            if other != name and parents[other] == parents[name]:
                assert right <= l2 or r2 <= left or bottom <= t2 or b2 <= top, (name, other)


def test_names_that_are_markup_are_text_in_a_drawing() -> None:
    step = {"id": "a", "name": '<script>&"', "type": "log", "config": {"message": "m"}}
    program = compile_definition({"steps": [step]})
    assert "<script>" not in graphs.as_svg(program)
    assert "<script>" not in graphs.as_mermaid(program)


def test_what_has_been_undone_is_compensated_and_what_ended_with_its_run_is_cancelled() -> None:
    undo = {"type": "log", "config": {"message": "m"}}
    steps = [{"id": name, "type": "log", "config": {"message": "m"}, "compensate": undo} for name in ("a", "b")]
    program = compile_definition({"steps": steps, "flow": "sequential"})
    told = [("a", "step.completed", 2), ("b", "step.started", 1), ("a:compensate", "step.compensated", 2)]
    states = graphs.states_of(program, told, "compensated", final=True)
    assert {name: s.visits for name, s in states.items()} == {"a": {"compensated": 2}, "b": {"cancelled": 1}}


def run(status: str, *steps: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "7", "workflowName": "order", "workflowVersion": "1.0.0", "status": status, "error": None,
        "startedAt": "2026-01-01T00:00:00Z", "finishedAt": None, "steps": list(steps),
    }  # fmt: skip


def step(path: str, status: str, **more: Any) -> dict[str, Any]:
    return {
        "path": path, "status": status, "type": "log", "attempts": 1, "error": None, "waitingFor": None,
        "nextAttemptAt": None, "startedAt": "2026-01-01T00:00:30Z", "finishedAt": "2026-01-01T00:00:31Z", **more,
    }  # fmt: skip


def test_a_run_is_a_tree_of_its_steps() -> None:
    steps = [
        step("p", "waiting", type="parallel", waitingFor="children", finishedAt=None),
        step("p[left]/a", "completed"),
        step("p[right]/b", "retrying", attempts=2, finishedAt=None, error={"class": "Timeout"}),
    ]
    assert tree.lines(run("running", *steps), NOW) == [
        "● order 1.0.0  7  running  1 min 0 s",
        "└─ ◔ p  parallel  30.0 s  for children",
        "   ├─ ✔ [left]",
        "   │  └─ ✔ a  log  1.0 s",
        "   └─ ↻ [right]",
        "      └─ ↻ b  log  30.0 s  attempt 2  Timeout",
    ]


def test_items_that_are_done_are_counted_where_there_are_many() -> None:
    items = [step(f"f[{i}]/q", "failed" if i == 3 else "completed") for i in range(40)]
    made = tree.lines(run("running", step("f", "waiting", waitingFor="children"), *items), NOW)
    assert made[2:] == ["   ├─ ✘ [3]", "   │  └─ ✘ q  log  1.0 s", "   └─ … 39 completed"]


def test_a_tree_is_no_higher_than_the_terminal() -> None:
    made = tree.lines(run("running", *[step(f"s{i}", "completed") for i in range(50)]), NOW, height=10)
    assert len(made) == 10 and made[1] == "  … 42 lines above" and made[-1].startswith("└─ ✔ s49")
