"""The picture of a definition: nodes and edges, as data, as Mermaid, as SVG."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

from esb_workers.orchestration.graph import all_lists, edges
from esb_workers.orchestration.model import Program, Step

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y = 180, 44, 40, 46


def as_data(program: Program) -> dict[str, list[dict[str, Any]]]:
    """`{"nodes": [{id, name, type, parent}], "edges": [{from, to, kind, label}]}`; `parent` has the list of a step."""
    parents = {
        inner: step.id
        for part in all_lists(program.top)
        for step in part.steps.values()
        for child in step.lists
        for inner in child.steps
    }
    nodes = [
        {"id": step.id, "name": step.name, "type": step.type, "parent": parents.get(step.id)}
        for step in program.steps.values()
    ]
    found = [edge for step in program.steps.values() for edge in _edges(step)]
    if program.on_error in program.top.steps:
        found.append({"from": None, "to": program.on_error, "kind": "onError", "label": None})
    return {"nodes": nodes, "edges": found}


def _edges(step: Step) -> Iterable[dict[str, Any]]:
    for path, target in edges(step):
        field = path.removeprefix(step.where).lstrip(".")
        kind = "next" if field in ("", "onSuccess") else field.split("[")[0].removeprefix("config.")
        label = ", ".join(step.catches[int(field[6 : field.index("]")])].errors) if kind == "catch" else None
        yield {"from": step.id, "to": target, "kind": kind, "label": label}
    for part in step.lists:
        if part.steps:
            yield {"from": step.id, "to": part.first, "kind": "contains", "label": None}


def as_mermaid(program: Program) -> str:
    """A Mermaid flowchart."""
    data = as_data(program)
    number = {node["id"]: f"s{index}" for index, node in enumerate(data["nodes"])}
    lines = ["flowchart TD"]
    for node in data["nodes"]:
        text = f"{node['name'] or node['id']}<br/><small>{node['type']}</small>".replace('"', "#quot;")
        lines.append(f'    {number[node["id"]]}["{text}"]')
    for edge in data["edges"]:
        if edge["from"] is not None and edge["to"] in number:
            arrow = "-->" if edge["kind"] == "next" else "-.->"
            told = "" if edge["kind"] == "next" else f"|{edge['label'] or edge['kind']}|"
            lines.append(f"    {number[edge['from']]} {arrow}{told} {number[edge['to']]}")
    return "\n".join(lines) + "\n"


def as_svg(program: Program) -> str:
    """A plain drawing: each step below those that lead to it."""
    data = as_data(program)
    places = _places(data)
    width = max(x for x, _ in places.values()) + _WIDTH + _GAP_X
    height = max(y for _, y in places.values()) + _HEIGHT + _GAP_Y
    lines = [
        _line(places[e["from"]], places[e["to"]], e["kind"])
        for e in data["edges"]
        if e["from"] in places and e["to"] in places
    ]
    boxes = [_box(places[node["id"]], node) for node in data["nodes"]]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        ' font-family="sans-serif" font-size="12">'
        '<defs><marker id="a" markerWidth="8" markerHeight="8" refX="7" refY="3" orient="auto">'
        f'<path d="M0,0 L7,3 L0,6 z" fill="#555"/></marker></defs>{"".join(lines)}{"".join(boxes)}</svg>\n'
    )


def _places(data: dict[str, list[dict[str, Any]]]) -> dict[str, tuple[int, int]]:
    """Left upper corners: the row of a step is its least distance from the first, its column its place there."""
    out: dict[str, list[str]] = {}
    for edge in data["edges"]:
        if edge["from"] is not None:
            out.setdefault(edge["from"], []).append(edge["to"])
    rows: dict[str, int] = {}
    for node in data["nodes"]:  # in order of definition, so that steps only onError leads to come last
        waiting = [(node["id"], 0 if not rows else max(rows.values()) + 1)] if node["id"] not in rows else []
        while waiting:
            name, row = waiting.pop(0)
            if name not in rows:
                rows[name] = row
                waiting += [(target, row + 1) for target in out.get(name, ())]
    columns: dict[int, int] = {}
    places = {}
    for name, row in rows.items():
        column = columns[row] = columns.get(row, -1) + 1
        places[name] = _GAP_X + column * (_WIDTH + _GAP_X), _GAP_Y // 2 + row * (_HEIGHT + _GAP_Y)
    return places


def _line(start: tuple[int, int], end: tuple[int, int], kind: str) -> str:
    dash = "" if kind == "next" else ' stroke-dasharray="4 3"'
    x1, y1, x2, y2 = start[0] + _WIDTH // 2, start[1] + _HEIGHT, end[0] + _WIDTH // 2, end[1]
    curve = f"M{x1},{y1} C{x1},{y1 + 24} {x2},{y2 - 24} {x2},{y2}"
    return f'<path d="{curve}" fill="none" stroke="#555"{dash} marker-end="url(#a)"/>'


def _box(place: tuple[int, int], node: dict[str, Any]) -> str:
    x, y = place
    title = escape(str(node["name"] or node["id"])[:26])
    return (
        f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" fill="#f4f6fa" stroke="#456"/>'
        f'<text x="{x + 10}" y="{y + 18}">{title}</text>'
        f'<text x="{x + 10}" y="{y + 35}" fill="#678">{escape(node["type"])}</text>'
    )
