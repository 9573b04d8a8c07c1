"""The drills by name and number."""

from __future__ import annotations

import importlib
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.drills.checker import Violation
from tests.drills.report import NotRun, Result
from tests.drills.scene import Scene

Play = Callable[[Scene], None]

_MODULES: Final = (
    "workers",
    "broker",
    "database",
    "network",
    "clocks",
    "destinations",
    "poison",
    "backlog",
    "crashes",
    "workflows",
)


@dataclass(frozen=True)
class Drill:
    """One of them. `quick`: has a short form that runs in CI."""

    number: int
    name: str
    proves: str
    play: Play
    quick: bool = False


_ALL: dict[str, Drill] = {}


def drill(number: int, name: str, proves: str, *, quick: bool = False) -> Callable[[Play], Play]:
    """Enter a function into the catalogue."""

    def enter(play: Play) -> Play:
        _ALL[name] = Drill(number, name, proves, play, quick)
        return play

    return enter


def catalogue() -> list[Drill]:
    """All of them, by number."""
    for module in _MODULES:
        importlib.import_module(f"tests.drills.{module}")
    return sorted(_ALL.values(), key=lambda d: d.number)


def chosen(words: tuple[str, ...]) -> list[Drill]:
    """Those named (or numbered) by `words`; all for none. Raises KeyError for a word that names none."""
    drills = catalogue()
    named = {key: d for d in drills for key in (d.name, str(d.number))}
    return [named[word] for word in words] if words else drills


def run(drill: Drill, *, quick: bool = False) -> Result:
    """Play a drill once and judge it. Whatever goes wrong is in the result; the folder of one that failed is kept."""
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix=f"drill-{drill.number}-"))
    result = _played(drill, folder, quick=quick)
    result.seconds = time.monotonic() - started
    if result.violations:
        result.notes.append(f"kept: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return result


def _played(drill: Drill, folder: Path, *, quick: bool) -> Result:
    scene = Scene(folder, quick=quick)
    try:
        with scene.stack:
            drill.play(scene)
            return scene.judge()
    except NotRun as reason:
        scene.result.not_run = str(reason)
    except Exception as error:
        scene.result.violations.append(Violation("drill", f"{type(error).__name__}: {error}"))
    return scene.result
