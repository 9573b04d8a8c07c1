"""The picture of a definition, or of a run of it: nodes and edges, as data, as Mermaid, as SVG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from esb_workers.orchestration import drawing
from esb_workers.orchestration.graph import edges
from esb_workers.orchestration.model import Program, Step, StepList

Graph = dict[str, list[dict[str, Any]]]

#: What a step with several visits is shown as: the first of these that one of them is.
_TELLING: Final = (
    "running", "retrying", "waiting", "pending", "failed", "compensated", "cancelled", "completed", "skipped",
)  # fmt: skip


@dataclass(slots=True)
class StepStates:
    """Where the visits of a step stand in a run: state → how many."""

    visits: dict[str, int] = field(default_factory=dict)

    @property
    def status(self) -> str | None:
        """The most telling of them."""
        return next((state for state in _TELLING if state in self.visits), None)


def as_data(program: Program, states: Mapping[str, StepStates] | None = None) -> Graph:
    """`{"nodes": [{id, name, type, parent, list}], "edges": [{from, to, kind, label}]}`.

    `parent` is the step whose list a step stands in, `list` that list's name, if it has one. With `states`, nodes have
    `status` and `visits` too: none, where a run has not come to a step.
    """
    nodes = [_node(step, parent, name) for step, parent, name in _placed(program.top, None, None)]
    if states is not None:
        for node in nodes:
            found = states.get(node["id"], StepStates())
            node |= {"status": found.status, "visits": found.visits}
    found_edges = [edge for step in program.steps.values() for edge in _edges(step)]
    if program.on_error in program.top.steps:
        found_edges.append({"from": None, "to": program.on_error, "kind": "onError", "label": None})
    return {"nodes": nodes, "edges": found_edges}


def _placed(part: StepList, parent: str | None, name: str | None) -> Iterable[tuple[Step, str | None, str | None]]:
    for step in part.steps.values():
        yield step, parent, name
        if step.config is not None:
            for inner, inner_name in zip(step.lists, step.kind.list_names(step.config), strict=True):
                yield from _placed(inner, step.id, inner_name)


def _node(step: Step, parent: str | None, name: str | None) -> dict[str, Any]:
    return {"id": step.id, "name": step.name, "type": step.type, "parent": parent, "list": name}


def _edges(step: Step) -> Iterable[dict[str, Any]]:
    for path, target in edges(step):
        where = path.removeprefix(step.where).lstrip(".")
        kind = "next" if where in ("", "onSuccess") else where.split("[")[0].removeprefix("config.")
        yield {"from": step.id, "to": target, "kind": kind, "label": _label(step, where)}
    for part in step.lists:
        if part.steps:
            yield {"from": step.id, "to": part.first, "kind": "contains", "label": None}


def _label(step: Step, where: str) -> str | None:
    if where.startswith("catch["):
        return ", ".join(step.catches[int(where[6 : where.index("]")])].errors)
    return step.kind.label(step.config, where.removeprefix("config.")) if where.startswith("config.") else None


def as_mermaid(program: Program, states: Mapping[str, StepStates] | None = None) -> str:
    """A Mermaid flowchart; the states of a run are its classes."""
    data = as_data(program, states)
    number = {node["id"]: f"s{index}" for index, node in enumerate(data["nodes"])}
    lines = ["flowchart TD"]
    for node in data["nodes"]:
        shown = node.get("status")
        below = node["type"] + (f" · {shown}" if shown else "")
        lines.append(f'    {number[node["id"]]}["{_quoted(node["name"] or node["id"])}<br/><small>{below}</small>"]')
    for edge in data["edges"]:
        if edge["from"] is not None and edge["to"] in number:
            arrow = "-->" if edge["kind"] == "next" else "-.->"
            told = "" if edge["kind"] == "next" else f'|"{_quoted(edge["label"] or edge["kind"])}"|'
            lines.append(f"    {number[edge['from']]} {arrow}{told} {number[edge['to']]}")
    for state, (fill, border) in drawing.COLOURS.items():
        members = [number[node["id"]] for node in data["nodes"] if state and node.get("status") == state]
        if members:
            lines += [f"    classDef {state} fill:{fill},stroke:{border}", f"    class {','.join(members)} {state}"]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return text.replace("&", "#amp;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")


def as_svg(program: Program, states: Mapping[str, StepStates] | None = None) -> str:
    """A drawing; coloured by the states of a run."""
    return drawing.svg(as_data(program, states))


def states_of(program: Program, ended: Iterable[tuple[str, str, int]], run: str, final: bool) -> dict[str, StepStates]:
    """The states of a run's steps from (step id, type of a visit's last event, how many); `run` is its status."""
    states: dict[str, StepStates] = {}
    for name, type_, count in ended:
        step, state = name, _STATES.get(type_, "running")
        if name not in program.steps:  # a compensation: what it undoes is compensated when it is
            step = name.removesuffix(":compensate")
            if type_ != "step.compensated":
                continue
        elif final and state in _OPEN:
            state = "cancelled"
        elif run == "paused" and state == "running":
            state = "pending"
        visits = states.setdefault(step, StepStates()).visits
        if state == "compensated" and "completed" in visits:
            visits["completed"] -= count
            visits = states[step].visits = {s: n for s, n in visits.items() if n}
        visits[state] = visits.get(state, 0) + count
    return states


_STATES: Final = {
    "step.started": "running",
    "step.waiting": "waiting",
    "step.retrying": "retrying",
    "step.completed": "completed",
    "step.failed": "failed",
    "step.exhausted": "failed",
    "step.skipped": "skipped",
    "step.cancelled": "cancelled",
    "step.compensated": "compensated",
}
_OPEN: Final = frozenset({"running", "waiting", "retrying"})
