"""`python -m tests.drills`: see the package."""

from __future__ import annotations

import argparse
import sys

from tests.drills.catalogue import Drill, catalogue, chosen, run
from tests.drills.report import Result, row_of, table


def main() -> int:
    """Run what was asked for; 0 if everything passed, 1 if something failed, 3 if something could not be run."""
    arguments = _arguments()
    if arguments.list:
        for each in catalogue():
            say(f"{each.number:>2}  {each.name:<24}{'quick  ' if each.quick else '       '}{each.proves}")
        return 0
    try:
        drills = chosen(tuple(arguments.names))
    except KeyError as unknown:
        say(f"there is no drill {unknown}; see --list")
        return 2
    if arguments.quick:
        drills = [d for d in drills if d.quick]
    played = [(d, _times(d, arguments.times, quick=arguments.quick)) for d in drills]
    say("")
    say(table([row_of(d.number, d.name, d.proves, results) for d, results in played]))
    results = [result for _, several in played for result in several]
    if any(r.violations for r in results):
        return 1
    return 3 if any(r.not_run for r in results) else 0


def say(line: str) -> None:
    """A line of output, at once: a run takes minutes."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _times(drill: Drill, times: int, *, quick: bool) -> list[Result]:
    results = []
    for number in range(1, times + 1):
        result = run(drill, quick=quick)
        which = f" ({number} of {times})" if times > 1 else ""
        recovery = f", recovered in {result.recovery:.1f} s" if result.recovery is not None else ""
        say(f"{drill.number:>2} {drill.name}{which}: {result.verdict} in {result.seconds:.0f} s{recovery}")
        for line in [*([result.not_run] if result.not_run else []), *map(str, result.violations), *result.notes]:
            say(f"     {line}")
        results.append(result)
        if result.not_run:
            break
    return results


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.drills", description="Fault drills on whole buses.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="drills by name or number; default: all")
    parser.add_argument("--times", type=int, default=1, metavar="N", help="run each N times in a row")
    parser.add_argument("--quick", action="store_true", help="the quick ones alone, in their short form")
    parser.add_argument("--list", action="store_true", help="what there is")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
