"""When a schedule is due. Pure: cron expressions, time zones, and the days on which clocks are changed.

A time that a zone skips in spring is due when its clocks have sprung forward; one that it has twice in autumn is due
the first time only. Expressions with `*` in minutes or hours go by elapsed time instead, and so see each hour there is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

#: Names for common expressions.
NAMED: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_INSTANT: Final = timedelta(microseconds=1)


def check_cron(expression: str) -> str:
    """The expression as it is. Raises ValueError for one that is none, or never comes due."""
    try:
        calendar = Calendar(expression)
        if next(calendar.after(datetime(2026, 1, 1, tzinfo=UTC)), None) is None:
            raise ValueError("never comes due")
    except CronSimError as error:
        raise ValueError(f"is no cron expression: {str(error).lower()}") from None
    return expression


def check_zone(name: str) -> str:
    """The name as it is. Raises ValueError for a zone that is not known."""
    _zone(name)
    return name


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("is no time zone of the IANA database, such as Europe/Berlin") from None


@dataclass(frozen=True, slots=True)
class Calendar:
    """The due times of a cron expression in a zone, from `start` (inclusive) until `end` (exclusive). All UTC."""

    cron: str
    timezone: str = "UTC"
    start: datetime | None = None
    end: datetime | None = None

    def after(self, moment: datetime) -> Iterator[datetime]:
        """The due times after a moment, in order."""
        if self.start is not None and moment < self.start:
            moment = self.start - _INSTANT
        for due in self._times(moment, reverse=False):
            if self.end is not None and due >= self.end:
                return
            yield due

    def upcoming(self, moment: datetime, count: int) -> list[datetime]:
        """The next few due times."""
        return list(islice(self.after(moment), count))

    def next(self, moment: datetime) -> datetime | None:
        """The first due time after a moment; None if there is none any more."""
        return next(self.after(moment), None)

    def latest(self, moment: datetime) -> datetime | None:
        """The last due time up to a moment, itself included."""
        until = moment if self.end is None else min(moment, self.end - _INSTANT)
        due = next(self._times(until + _INSTANT, reverse=True), None)
        return None if due is None or (self.start is not None and due < self.start) else due

    def _times(self, moment: datetime, *, reverse: bool) -> Iterator[datetime]:
        local = moment.astimezone(_zone(self.timezone))
        for due in CronSim(NAMED.get(self.cron, self.cron), local, reverse=reverse):
            yield due.astimezone(UTC)


#: A due time that old was missed: nobody was there to handle it.
GRACE: Final = timedelta(seconds=60)
#: Due times handled in one transaction.
MOST: Final = 50


def due_times(calendar: Calendar, since: datetime, now: datetime, catch_up: str) -> list[datetime]:
    """Which due times to handle now, of those from `since` (itself one) until now; oldest first, MOST at once.

    Those missed are left out (`none`), but for the last due (`last`), or made up for one by one (`all`).
    """
    if catch_up == "last" and since < now - GRACE:
        latest = calendar.latest(now)
        return [] if latest is None else [latest]
    begin = since if catch_up == "all" else max(since, now - GRACE)
    found: list[datetime] = []
    for due in calendar.after(begin - _INSTANT):
        if due > now or len(found) == MOST:
            break
        found.append(due)
    return found
