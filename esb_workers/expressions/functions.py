"""The functions that the bus adds to CEL. docs/reference/routes.md lists them.

    uuid()                          a new UUID, as text
    hash(value[, algorithm])        hexadecimal; text and bytes as they are, anything else as its JSON
    base64.encode(text)             beside CEL's own for bytes; base64.decode gives bytes
    formatTime(time, format[, zone])   time a timestamp or RFC 3339 text; format as strftime's
    parseTime(text, format[, zone])    a timestamp
    lookup(table, key[, default])   an entry of a lookup table

What a function needs from outside, a Host, is bound by whoever evaluates.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any, Final, NoReturn
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cel_expr_python import cel  # type: ignore[import-untyped]

ALGORITHMS: Final = ("sha256", "sha1", "sha512", "md5")
#: Characters of a time format, and what may stand in it: directives that give the same on every system.
MAX_FORMAT: Final = 200
#: Values that one argument may have.
MAX_VALUES: Final = 100_000
_DIRECTIVES: Final = frozenset("aAbBdfHIjmMpSuUVwWyYGzZ%")
_DIRECTIVE = re.compile(r"%(.?)", re.DOTALL)

Tables = Mapping[str, Mapping[str, Any]]


def _random() -> str:
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True)
class Host:
    """What functions see of the world outside the expression."""

    new_uuid: Callable[[], str] = _random
    tables: Tables | None = None  # by name, then by key; None: there are none here


_host: ContextVar[Host] = ContextVar("host", default=Host())  # noqa: B039 (a Host is immutable)


@contextmanager
def bound(host: Host) -> Iterator[None]:
    """Expressions evaluated inside see this host."""
    token = _host.set(host)
    try:
        yield
    finally:
        _host.reset(token)


def declarations() -> Iterator[Any]:
    """The functions, as CEL takes them."""
    kind = cel.Type
    text, anything, moment = kind.STRING, kind.DYN, kind.TIMESTAMP
    yield _function("uuid", (text, [], lambda: _host.get().new_uuid()))
    yield _function("hash", (text, [anything], _hash), (text, [anything, text], _hash))
    yield _function("base64.encode", (text, [text], lambda value: base64.b64encode(value.encode()).decode()))
    yield _function(
        "formatTime",
        *((text, [of, *more], format_time) for of in (moment, text) for more in ([text], [text, text])),
    )
    yield _function("parseTime", (moment, [text, text], parse_time), (moment, [text, text, text], parse_time))
    yield _function("lookup", (anything, [text, anything], _lookup), (anything, [text, anything, anything], _lookup))


def _function(name: str, *overloads: tuple[Any, list[Any], Callable[..., Any]]) -> Any:
    declared = [
        cel.Overload(f"esb_{name}_{'_'.join(kind.name() for kind in taken)}", given, taken, impl=implementation)
        for given, taken, implementation in overloads
    ]
    return cel.FunctionDecl(name, declared)


def _hash(value: Any, algorithm: str = "sha256") -> str:
    if algorithm not in ALGORITHMS:
        raise ValueError(f"hash() knows {', '.join(ALGORITHMS)}, not {algorithm!r}")
    return hashlib.new(algorithm, _bytes(value), usedforsecurity=False).hexdigest()


def _bytes(value: Any) -> bytes:
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if isinstance(value, str):
        return value.encode()
    return json.dumps(_plain(value, _Count()), sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


class _Count:
    """How many values were unfolded: lists of lists may share, and so be far larger than what made them."""

    def __init__(self) -> None:
        self.values = 0


def _plain(value: Any, count: _Count) -> Any:
    """A value as functions get it, down to plain JSON: the library unfolds one level at a time."""
    count.values += 1
    if count.values > MAX_VALUES:
        raise ValueError(f"a function was given more than {MAX_VALUES} values")
    if isinstance(value, cel.Value):
        value = value.value()
    if isinstance(value, dict):
        return {str(_plain(key, count)): _plain(item, count) for key, item in value.items()}
    return [_plain(item, count) for item in value] if isinstance(value, list) else value


def format_time(time: datetime | str, form: str, zone: str = "UTC") -> str:
    """`time` by `form`, in a time zone. Raises ValueError."""
    _check_format(form)
    moment = datetime.fromisoformat(time) if isinstance(time, str) else time
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.astimezone(_zone(zone)).strftime(form)


def parse_time(text: str, form: str, zone: str = "UTC") -> datetime:
    """The time that `text` writes by `form`, in a time zone unless it says its own. Raises ValueError."""
    _check_format(form)
    moment = datetime.strptime(text, form)  # noqa: DTZ007 (the zone comes next)
    return (moment.replace(tzinfo=_zone(zone)) if moment.tzinfo is None else moment).astimezone(UTC)


def _check_format(form: str) -> None:
    if len(form) > MAX_FORMAT:
        raise ValueError(f"a time format has at most {MAX_FORMAT} characters")
    for found in _DIRECTIVE.finditer(form):
        if found[1] not in _DIRECTIVES:
            raise ValueError(f"{found[0]!r} is no directive of a time format")


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"there is no time zone {name!r}") from None


_NO_DEFAULT: Final[Any] = object()


def _lookup(table: str, key: Any, default: Any = _NO_DEFAULT) -> Any:
    tables = _host.get().tables
    if tables is None:
        raise ValueError("there are no lookup tables here")
    if table not in tables:
        raise ValueError(f"there is no lookup table {table!r}")
    entries = tables[table]
    name = _key(key)
    if name in entries:
        return entries[name]
    if default is _NO_DEFAULT:
        raise ValueError(f"the lookup table {table!r} has no key {name!r}")
    return _plain(default, _Count())


def _key(key: Any) -> str:
    """A key as entries have it: text, or the JSON of a number or boolean."""
    if isinstance(key, str):
        return key
    if isinstance(key, (bool, int)):
        return json.dumps(key)
    if isinstance(key, float) and key.is_integer():
        return str(int(key))
    raise ValueError("a key of a lookup table is text, a whole number or a boolean")


def refuse_uuid() -> NoReturn:
    """Stands for `new_uuid` where a result must be the same when it is computed once more after a crash."""
    raise ValueError("uuid() is not available in workflows: after a crash it would give another one")
