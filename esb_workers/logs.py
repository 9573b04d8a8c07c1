"""Log lines: one JSON object each, or plain text for a person, with the correlation id of the work at hand.

`bind(correlation_id=…)` adds fields to every line written in its block, on its thread; a `extra={…}` of a
single call adds fields to one line. Nothing here looks into messages for secrets: what is secret is never
passed to a logger (settings hold `SecretStr`, keys are logged by their public id).
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, TextIO

import orjson

_bound: ContextVar[dict[str, Any] | None] = ContextVar("esb_log_fields", default=None)

#: What every LogRecord carries anyway; everything else on a record came by `extra`.
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_BLANK: Final = {**vars(logging.makeLogRecord({})), "args": None}


@contextmanager
def bind(**fields: Any) -> Iterator[None]:
    """Add `fields` (in snake_case; written in camelCase) to every line logged inside this block."""
    token = _bound.set({**(_bound.get() or {}), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def annotate(**fields: Any) -> None:
    """The same for all that follows on this thread, in place of what was bound: for loops that begin anew."""
    _bound.set(fields)


def event(logger: logging.Logger, message: str, level: int = logging.INFO, **fields: Any) -> None:
    """One line with `fields` (in camelCase already) and nothing else: for lines by the thousand.

    For a part of the cost of `logger.log(…, extra=…)`, which looks up its caller and sorts extras from the rest; and
    where our handler is the only one to hear of it, without a record and what hands that on.
    """
    if not logger.isEnabledFor(level):
        return
    handler, created = _only_one(logger), time.time()
    if handler is not None and handler.write_event(created, level, logger.name, message, fields):
        return
    # In place of LogRecord's own making, most of which is about where in the code the call stands.
    record = logging.LogRecord.__new__(logging.LogRecord)
    record.__dict__ = {**_BLANK, "name": logger.name, "msg": message, "levelno": level, "created": created}
    record.levelname, record.__dict__["fields"] = logging.getLevelName(level), fields
    logger.handle(record)


def _only_one(logger: logging.Logger) -> LineHandler | None:
    """Who alone would write what this logger is told, with nobody between the two who could filter it."""
    if logger.filters:
        return None
    while (above := logger.parent) is not None:
        if logger.handlers or not logger.propagate:
            return None
        logger = above
    only = logger.handlers[0] if len(logger.handlers) == 1 else None
    return only if type(only) is LineHandler and not only.filters and not only.level else None


class _Gathered(threading.local):
    lines: list[str] | None = None  # of this thread, while it is inside `together`


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes each line at once, but those of a `together` block."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._gathered = _Gathered()

    def handle(self, record: logging.LogRecord) -> bool:
        """Write it, or put it with the others of its block, for which nobody's lock is needed."""
        lines = self._gathered.lines
        if lines is None:
            return super().handle(record)
        passed = bool(self.filter(record))
        if passed:
            try:
                lines.append(self.format(record))
            except Exception:
                self.handleError(record)
        return passed

    def write_event(self, created: float, level: int, logger: str, message: str, fields: dict[str, Any]) -> bool:
        """Write the line of an `event`; False for what takes a record to be written."""
        form = self.formatter
        if type(form) is not JsonFormatter:
            return False
        line = {"time": _moment(created), "level": _name(level), "logger": logger, "process": form.process}
        try:
            text = orjson.dumps({**line, "message": message, **fields}, default=str).decode()
        except TypeError:
            return False
        lines = self._gathered.lines
        if lines is None:
            self._write(f"{text}{self.terminator}")
        else:
            lines.append(text)
        return True

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write this thread's lines of the block at its end, in one go."""
        if self._gathered.lines is not None:
            yield
            return
        lines = self._gathered.lines = []
        try:
            yield
        finally:
            self._gathered.lines = None
            if lines:
                self._write(self.terminator.join([*lines, ""]))

    def _write(self, text: str) -> None:
        with self.lock or nullcontext():
            try:
                self.stream.write(text)
                self.flush()
            except Exception:  # as a handler does: a log that cannot be written stops nobody's work
                self.handleError(logging.makeLogRecord({"msg": text}))


@contextmanager
def together() -> Iterator[None]:
    """Write the lines that this thread logs in the block at its end, in one go: a write costs as much as a line."""
    handler = next((one for one in logging.getLogger().handlers if isinstance(one, LineHandler)), None)
    with handler.together() if handler else nullcontext():
        yield


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """The bound fields, then the record's own `extra` ones, keys in camelCase; or those of an `event`."""
    ready: dict[str, Any] | None = record.__dict__.get("fields")
    if ready is not None:
        return ready
    own = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    return {_camel(key): value for key, value in {**(_bound.get() or {}), **own}.items() if value is not None}


class JsonFormatter(logging.Formatter):
    """`{"time", "level", "logger", "process", "message", …fields, "stack"?}` on one line."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self.process = process

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _moment(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": self.process,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["stack"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
        except TypeError:  # a lone surrogate, a huge integer: whatever it is, the line must be written
            return json.dumps(line, default=str)


class ConsoleFormatter(logging.Formatter):
    """`08:00:00.123 INFO esb.delivery delivered  correlationId=… status=…`, for a person."""

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{key}={value}" for key, value in fields_of(record).items())
        text = f"{_moment(record.created)[11:23]} {record.levelname} {record.name} {record.getMessage()}"
        text = f"{text}  {fields}" if fields else text
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def configure(process: str, *, log_format: str = "json", level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send all logging of this process (`api`, `worker delivery` …) to `stream` (stderr) in one shape.

    Replaces the root logger's handlers, so that libraries speak the same shape; call it once at start.
    """
    handler = LineHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(process) if log_format == "json" else ConsoleFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    # Looking up the caller's frame and thread costs more than the rest of a line, and no shape shows them.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


@lru_cache(maxsize=16)
def _name(level: int) -> str:
    return logging.getLevelName(level).lower()


def _moment(created: float) -> str:
    second, rest = divmod(created, 1)
    return f"{_second(int(second))}.{int(rest * 1000):03}Z"


@lru_cache(maxsize=4)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@lru_cache(maxsize=1000)
def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)
