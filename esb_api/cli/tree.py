"""A run as a tree of its steps, for people. Pure: from what the API shows to lines of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

Json = Mapping[str, Any]

SIGNS: Final = {
    "pending": "○", "running": "●", "retrying": "↻", "waiting": "◔", "completed": "✔", "failed": "✘",
    "skipped": "–", "cancelled": "⊘", "compensated": "↩", "paused": "‖", "timed_out": "✘",
}  # fmt: skip
COLOURS: Final = {
    "running": 34, "retrying": 33, "waiting": 33, "paused": 33, "completed": 32, "failed": 31, "timed_out": 31,
    "skipped": 90, "cancelled": 90, "compensated": 35,
}  # fmt: skip
#: Items, branches or rounds of a step that are shown one by one; of more, those that are done well are counted.
SHOWN: Final = 6
_DONE: Final = frozenset({"completed", "skipped"})


@dataclass(slots=True)
class _Node:
    label: str
    step: Json | None = None
    visits: int = 0
    below: dict[str, _Node] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """Its own, or that of the liveliest below it, or of the last."""
        if self.step is not None:
            return str(self.step["status"])
        found = [node.status for node in self.below.values()]
        return next((s for s in ("running", "retrying", "waiting") if s in found), found[-1] if found else "")


def lines(run: Json, now: datetime, height: int | None = None, colour: bool = False) -> list[str]:
    """The run and its steps, at most `height` lines."""
    paint = _painted if colour else _plain
    head = f"{paint(run['status'])} {run['workflowName']} {run['workflowVersion']}  {run['id']}  {run['status']}"
    head += f"  {_lasted(run, now)}"
    made = [head, *_below(_tree(run["steps"]), "", now, paint)]
    if error := run.get("error"):
        made.append(f"  {error.get('class')}: {error.get('message')}")
    if height is not None and len(made) > height:
        hidden = len(made) - height + 1
        made = [head, f"  … {hidden} lines above", *made[hidden + 1 :]]
    return made


def _tree(steps: Sequence[Json]) -> _Node:
    root = _Node("")
    for step in steps:
        node = root
        *around, last = str(step["path"]).split("/")
        for part in around:
            name, _, place = part.partition("[")
            node = node.below.setdefault(name, _Node(name))
            node = node.below.setdefault(part, _Node(f"[{place}"))
        leaf = node.below.setdefault(last, _Node(last))
        leaf.step, leaf.visits = step, leaf.visits + 1
    return root


def _below(node: _Node, indent: str, now: datetime, paint: Any) -> Iterator[str]:
    shown, hidden = _chosen(list(node.below.values()))
    for number, child in enumerate(shown):
        last = number == len(shown) - 1 and not hidden
        yield f"{indent}{'└─' if last else '├─'} {_line(child, now, paint)}"
        yield from _below(child, indent + ("   " if last else "│  "), now, paint)
    if hidden:
        yield f"{indent}└─ … " + ", ".join(f"{count} {state}" for state, count in hidden.items())


def _chosen(nodes: list[_Node]) -> tuple[list[_Node], Counter[str]]:
    """Those to be shown, and how many others stand in which state."""
    if len(nodes) <= SHOWN or not all(node.label.startswith("[") for node in nodes):
        return nodes, Counter()
    lively = [node for node in nodes if node.status not in _DONE]
    shown = lively[-SHOWN:]
    chosen = {id(node) for node in shown}
    return shown, Counter(node.status for node in nodes if id(node) not in chosen)


def _line(node: _Node, now: datetime, paint: Any) -> str:
    text = f"{paint(node.status)} {node.label}"
    step = node.step
    if step is None:
        return text
    told = [step["type"] or "", _lasted(step, now)]
    if node.visits > 1:
        told.append(f"visit {node.visits}")
    if step["attempts"] > 1:
        told.append(f"attempt {step['attempts']}")
    if step["status"] == "waiting":
        told.append(f"for {step['waitingFor']}")
    if step["status"] in ("waiting", "retrying") and step.get("nextAttemptAt"):
        told.append(f"until {step['nextAttemptAt']}")
    if step.get("error"):
        told.append(str(step["error"].get("class")))
    return f"{text}  " + "  ".join(part for part in told if part)


def _lasted(thing: Json, now: datetime) -> str:
    if not thing.get("startedAt"):
        return ""
    end = datetime.fromisoformat(thing["finishedAt"]) if thing.get("finishedAt") else now
    seconds = max(0.0, (end - datetime.fromisoformat(thing["startedAt"])).total_seconds())
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {int(seconds % 60)} s"


def _plain(status: str) -> str:
    return SIGNS.get(status, "·")


def _painted(status: str) -> str:
    return f"\x1b[{COLOURS.get(status, 0)}m{_plain(status)}\x1b[0m"
