"""What a drill came to, and the table of them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


class NotRun(Exception):
    """This drill needs what this machine does not have; that is not a pass."""


@dataclass
class Result:
    """One run. `recovery`: seconds from the end of the fault until nothing was under way any more."""

    violations: list[Any] = field(default_factory=list)
    accepted: int = 0
    unknown: int = 0
    arrived: int = 0
    twice: int = 0
    recovery: float | None = None
    not_run: str | None = None
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.violations and self.not_run is None

    @property
    def verdict(self) -> str:
        if self.not_run is not None:
            return "not run"
        return "passed" if self.passed else "FAILED"


HEADS = ("#", "drill", "proves", "accepted", "unknown", "arrived", "sent twice", "recovery s", "took s", "verdict")


def row_of(number: int, name: str, proves: str, results: Sequence[Result]) -> tuple[str, ...]:
    """A line of the table: sums over the runs, the longest recovery, the worst verdict."""
    done = [r for r in results if r.not_run is None]
    recoveries = [r.recovery for r in done if r.recovery is not None]
    verdicts = [r.verdict for r in results]
    worst = next((v for v in ("FAILED", "not run", "passed") if v in verdicts), "not run")
    times = f" {verdicts.count('passed')}/{len(verdicts)}" if len(verdicts) > 1 else ""
    return (
        str(number), name, proves, *(str(sum(getattr(r, f) for r in done)) for f in ("accepted", "unknown", "arrived", "twice")),
        f"{max(recoveries):.1f}" if recoveries else "–", f"{sum(r.seconds for r in results):.0f}", worst + times,
    )  # fmt: skip


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a Markdown table that also reads well as text."""
    lines = [HEADS, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADS))]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    return "\n".join([text[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *text[1:]])
