"""Definitions as SVG: each step below those that lead to it, steps inside steps inside their box. Pure.

A list is laid out in rows: a step's row is the longest way to it from the first. Ways that lead on by one row are drawn
straight down; those that lead back, or past other rows, run in lanes of their own at the right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, Final

WIDTH, HEIGHT, GAP_X, GAP_Y, PAD, LANE = 190, 48, 36, 50, 14, 22
_CHAR: Final = 6.6  # about the width of a letter at 12 px

#: State → (fill, border).
COLOURS: Final = {
    None: ("#f4f6fa", "#8a97ab"),
    "pending": ("#f4f6fa", "#8a97ab"),
    "running": ("#dcebff", "#1f6feb"),
    "retrying": ("#fff1d6", "#c27803"),
    "waiting": ("#fff8db", "#b58900"),
    "completed": ("#ddf4e4", "#1a7f37"),
    "failed": ("#ffe1de", "#cf222e"),
    "skipped": ("#f0f0f0", "#9a9a9a"),
    "cancelled": ("#e6e6e6", "#6e6e6e"),
    "compensated": ("#eee3ff", "#8250df"),
}
_DASHED: Final = ' stroke-dasharray="5 4"'


@dataclass(slots=True)
class _Box:
    """A step: its size, its place in its list, and the lists inside it."""

    node: Mapping[str, Any]
    lists: list[_Laid] = field(default_factory=list)
    width: float = WIDTH
    height: float = HEIGHT
    x: float = 0
    y: float = 0
    rank: int = 0


@dataclass(slots=True)
class _Laid:
    """A list laid out."""

    boxes: dict[str, _Box]
    edges: list[Mapping[str, Any]]
    entries: list[str] = field(default_factory=list)  # boxes that are reached from anywhere
    bottoms: dict[int, float] = field(default_factory=dict)  # of each row
    tops: dict[int, float] = field(default_factory=dict)
    title: str | None = None
    width: float = 0
    height: float = 0
    x: float = 0
    y: float = 0


def svg(data: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The drawing of a graph as `graphs.as_data` makes it; with states, where its nodes have any."""
    laid = _laid(data, None, None, None)
    width, height = laid.width + 2 * PAD, laid.height + 2 * PAD
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}"'
        f' viewBox="0 0 {width:.0f} {height:.0f}" font-family="system-ui, sans-serif" font-size="12">'
        '<defs><marker id="a" markerWidth="9" markerHeight="8" refX="8" refY="4" orient="auto">'
        '<path d="M0,0 L9,4 L0,8 z" fill="#5b6675"/></marker></defs>'
        f'<rect width="100%" height="100%" fill="#fff"/>{_drawn(laid, PAD, PAD)}</svg>\n'
    )


# --- laying out ------------------------------------------------------------------------------------------


def _laid(
    data: Mapping[str, Sequence[Mapping[str, Any]]], parent: str | None, list_name: str | None, title: str | None
) -> _Laid:
    nodes = [n for n in data["nodes"] if n["parent"] == parent and n["list"] == list_name]
    boxes = {node["id"]: _box(data, node) for node in nodes}
    edges = [e for e in data["edges"] if e["from"] in boxes and e["to"] in boxes]
    entries = [edge["to"] for edge in data["edges"] if edge["from"] is None and edge["to"] in boxes]
    laid = _Laid(boxes, edges, entries, title=title)
    _rank(laid)
    _place(laid)
    return laid


def _box(data: Mapping[str, Sequence[Mapping[str, Any]]], node: Mapping[str, Any]) -> _Box:
    box = _Box(node)
    named = dict.fromkeys(n["list"] for n in data["nodes"] if n["parent"] == node["id"])
    box.lists = [_laid(data, node["id"], name, name) for name in named]
    if box.lists:
        x = float(PAD)
        for inner in box.lists:
            inner.x, inner.y = x, HEIGHT + (18 if inner.title else 4)
            x += inner.width + PAD
        box.width = max(WIDTH, x)
        box.height = max(inner.y + inner.height for inner in box.lists) + PAD
    return box


def _rank(laid: _Laid) -> None:
    """The longest way to each box, ways back left out."""
    following: dict[str, list[str]] = {name: [] for name in laid.boxes}
    for edge in laid.edges:
        following[edge["from"]].append(edge["to"])
    order = _topological(following)
    position = {name: number for number, name in enumerate(order)}
    for name in order:
        for target in following[name]:
            if position[target] > position[name]:
                laid.boxes[target].rank = max(laid.boxes[target].rank, laid.boxes[name].rank + 1)
    _lower(laid, following)


def _lower(laid: _Laid, following: Mapping[str, Sequence[str]]) -> None:
    """What the first step does not lead to comes below all the rest."""
    reached: set[str] = set()
    waiting = list(laid.boxes)[:1]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += following[name]
    lowest = max((laid.boxes[name].rank for name in reached), default=0) + 1
    for name, box in laid.boxes.items():
        if name not in reached:
            box.rank += lowest


def _topological(following: Mapping[str, Sequence[str]]) -> list[str]:
    """Every name before those it leads to, but for ways back. Not recursive: a list may have a thousand steps."""
    done: list[str] = []
    seen: set[str] = set()
    for root in following:
        if root in seen:
            continue
        seen.add(root)
        stack = [(root, iter(following[root]))]
        while stack:
            name, targets = stack[-1]
            for target in targets:
                if target not in seen:
                    seen.add(target)
                    stack.append((target, iter(following[target])))
                    break
            else:
                done.append(name)
                stack.pop()
    return done[::-1]


def _place(laid: _Laid) -> None:
    rows: dict[int, list[_Box]] = {}
    for box in laid.boxes.values():
        rows.setdefault(box.rank, []).append(box)
    widths = {rank: sum(box.width for box in row) + GAP_X * (len(row) - 1) for rank, row in rows.items()}
    laid.width = max(widths.values(), default=0)
    y = 0.0
    for rank in sorted(rows):
        x = (laid.width - widths[rank]) / 2
        for box in rows[rank]:
            box.x, box.y = x, y
            x += box.width + GAP_X
        laid.tops[rank] = y
        laid.bottoms[rank] = y + max(box.height for box in rows[rank])
        y = laid.bottoms[rank] + GAP_Y
    laid.height = max(0.0, y - GAP_Y)
    aside = [edge for edge in laid.edges if _aside(laid, edge)]
    if aside:
        if any(laid.boxes[edge["from"]].rank == max(rows) for edge in aside):
            laid.height += GAP_Y / 2
        labels = max(len(_label(edge)) for edge in aside)
        laid.width += LANE * len(aside) + labels * _CHAR + 8


def _aside(laid: _Laid, edge: Mapping[str, Any]) -> bool:
    """Whether an edge runs in a lane at the right: it leads back, or past a row."""
    return laid.boxes[edge["to"]].rank - laid.boxes[edge["from"]].rank != 1


# --- drawing ---------------------------------------------------------------------------------------------


def _drawn(laid: _Laid, x: float, y: float) -> str:
    lane = max((box.x + box.width for box in laid.boxes.values()), default=0) + LANE
    parts = []
    for edge in laid.edges:
        start, end = laid.boxes[edge["from"]], laid.boxes[edge["to"]]
        if _aside(laid, edge):
            parts.append(_around(laid, edge, x, y, lane))
            lane += LANE
        else:
            parts.append(_down(edge, start, end, x, y))
    parts += [_entry(laid.boxes[name], x, y) for name in laid.entries]
    parts += [_shape(box, x + box.x, y + box.y) for box in laid.boxes.values()]
    return "".join(parts)


def _down(edge: Mapping[str, Any], start: _Box, end: _Box, x: float, y: float) -> str:
    x1, y1 = x + start.x + start.width / 2, y + start.y + start.height
    x2, y2 = x + end.x + end.width / 2, y + end.y
    bend = max(18, (y2 - y1) / 2)
    path = f"M{x1:.1f},{y1:.1f} C{x1:.1f},{y1 + bend:.1f} {x2:.1f},{y2 - bend:.1f} {x2:.1f},{y2:.1f}"
    return _line(path, edge) + _text(edge, (x1 + x2) / 2, y2 - GAP_Y / 2 + 4, "middle")


def _around(laid: _Laid, edge: Mapping[str, Any], x: float, y: float, lane: float) -> str:
    """Down below the row, across to the lane, along it, and back above the row of the target: past no box."""
    start, end = laid.boxes[edge["from"]], laid.boxes[edge["to"]]
    x1, y1 = x + start.x + start.width * 0.75, y + start.y + start.height
    x2, y2 = x + end.x + end.width * 0.75, y + end.y
    below, above, right = y + laid.bottoms[start.rank] + 11, y + laid.tops[end.rank] - 13, x + lane
    path = f"M{x1:.1f},{y1:.1f} V{below:.1f} H{right:.1f} V{above:.1f} H{x2:.1f} V{y2:.1f}"
    return _line(path, edge) + _text(edge, right + 4, (below + above) / 2, "start")


def _entry(box: _Box, x: float, y: float) -> str:
    """A way in from anywhere."""
    edge = {"kind": "onError", "label": None}
    x, y = x + box.x + box.width / 2, y + box.y
    return _line(f"M{x:.1f},{y - 30:.1f} V{y:.1f}", edge) + _text(edge, x, y - 34, "middle")


def _line(path: str, edge: Mapping[str, Any]) -> str:
    dash = "" if edge["kind"] in ("next", "cases", "default") else _DASHED
    return f'<path d="{path}" fill="none" stroke="#5b6675"{dash} marker-end="url(#a)"/>'


def _label(edge: Mapping[str, Any]) -> str:
    text = "" if edge["kind"] == "next" else str(edge["label"] or edge["kind"])
    return text if len(text) <= 28 else f"{text[:27]}…"


def _text(edge: Mapping[str, Any], x: float, y: float, anchor: str) -> str:
    if not (label := _label(edge)):
        return ""
    width = len(label) * _CHAR * 0.9
    left = x - width / 2 if anchor == "middle" else x
    return (
        f'<rect x="{left - 3:.1f}" y="{y - 10:.1f}" width="{width + 6:.1f}" height="14" fill="#fff" opacity="0.9"/>'
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="11" fill="#5b6675">{escape(label)}</text>'
    )


def _shape(box: _Box, x: float, y: float) -> str:
    node = box.node
    state = node.get("status")
    fill, border = COLOURS.get(state, COLOURS[None])
    thick = 2 if state not in (None, "pending") else 1
    title, below = escape(_short(node["name"] or node["id"])), escape(_short(_second(node), 30))
    drawn = (
        f'<g><title>{escape(_told(node))}</title><rect x="{x:.1f}" y="{y:.1f}" width="{box.width:.1f}"'
        f' height="{box.height:.1f}" rx="7" fill="{fill}" stroke="{border}" stroke-width="{thick}"/>'
        f'<text x="{x + 11:.1f}" y="{y + 20:.1f}" font-weight="600" fill="#1f2733">{title}</text>'
        f'<text x="{x + 11:.1f}" y="{y + 37:.1f}" font-size="11" fill="#556070">{below}</text></g>'
    )
    parts = [drawn]
    for inner in box.lists:
        if inner.title:
            left, top = x + inner.x, y + inner.y - 6
            parts.append(
                f'<text x="{left:.1f}" y="{top:.1f}" font-size="11" fill="#556070">{escape(_short(inner.title))}</text>'
            )
        parts.append(_drawn(inner, x + inner.x, y + inner.y))
    return "".join(parts)


def _second(node: Mapping[str, Any]) -> str:
    """The line below the name: the type, and where it stands."""
    if not node.get("status"):
        return str(node["type"])
    counts = node.get("visits") or {}
    if sum(counts.values()) > 1:
        return f"{node['type']} · " + ", ".join(f"{count} {state}" for state, count in counts.items())
    return f"{node['type']} · {node['status']}"


def _told(node: Mapping[str, Any]) -> str:
    return f"{node['id']} ({node['type']})" + (f": {node['status']}" if node.get("status") else "")


def _short(text: str, most: int = 25) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
