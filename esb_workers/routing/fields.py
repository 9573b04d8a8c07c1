"""Taking the JSON of a route apart field by field, and saying all that is wrong with it at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from esb_workers.errors import FieldError, Invalid
from esb_workers.expressions.templates import Template, compile_template

T = TypeVar("T")


class Fields:
    """Takes the fields of an object one by one and collects what is wrong with them. Null means absent."""

    def __init__(self, body: Mapping[str, Any], path: str, read_only: frozenset[str] = frozenset()) -> None:
        self._body, self._prefix = body, f"{path}." if path else ""
        self._known: set[str] = set(read_only)
        self.faults: list[FieldError] = []

    @classmethod
    def of(cls, value: Any, path: str) -> Fields:
        """The fields of a value that must be an object. Raises Invalid."""
        if not isinstance(value, Mapping):
            raise fault(path, "must be an object")
        return cls(value, path)

    def required(self, name: str, check: Callable[[Any, str], T]) -> T:
        """The checked field; what is answered after a fault is never used."""
        if self._body.get(name) is None:
            self._known.add(name)
            self.faults.append(FieldError(self._prefix + name, "is required"))
        nothing: Any = None
        checked: T = self.optional(name, nothing, check)
        return checked

    def optional(self, name: str, default: T, check: Callable[[Any, str], T]) -> T:
        """The checked field, or `default`."""
        self._known.add(name)
        if self._body.get(name) is None:
            return default
        try:
            checked: T = check(self._body[name], self._prefix + name)
        except Invalid as error:
            self.faults += error.errors
            return default
        return checked

    def wrong(self, name: str, message: str) -> None:
        """Note a fault that shows only beside other fields."""
        self.faults.append(FieldError(self._prefix + name, message))

    def finish(self) -> None:
        """Raise Invalid if there was any fault, a field that does not exist included."""
        self.faults += [
            FieldError(self._prefix + name, "there is no such field") for name in self._body if name not in self._known
        ]
        if self.faults:
            raise Invalid(self.faults)


def fault(path: str, message: str) -> Invalid:
    """One fault."""
    return Invalid([FieldError(path, message)])


def text_template(value: Any, path: str) -> Template:
    """A string, in which `${…}` may stand."""
    if not isinstance(value, str) or not value:
        raise fault(path, "must be a string that is not empty")
    return compile_template(value, path)


def flag(value: Any, path: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise fault(path, "must be true or false")
    return value


def whole(least: int, most: int) -> Callable[[Any, str], Any]:
    """A whole number within bounds."""

    def check(value: Any, path: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise fault(path, f"must be a whole number from {least} to {most}")
        return value

    return check


def one_of(words: tuple[str, ...]) -> Callable[[Any, str], str]:
    """One of several words."""

    def check(value: Any, path: str) -> str:
        if not isinstance(value, str) or value not in words:
            raise fault(path, f"must be one of {', '.join(words)}")
        return value

    return check
