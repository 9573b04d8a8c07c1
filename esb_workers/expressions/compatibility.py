"""What changes between two versions of a JSON Schema, and for whom: who sends, or who reads.

A change *breaks backward* if something that fitted the old schema may not fit the new one: senders who have not
changed are turned down. It *breaks forward* if something that fits the new schema may not fit the old one: readers
who have not changed meet what they do not know. What cannot be told is taken to break both. One thing is taken
lightly on purpose, as everybody expects it: naming a property that an open object might have held all along, and
naming it no longer, break nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

Compatibility = Literal["backward", "forward", "full", "none"]
Direction = Literal["backward", "forward"]

BACKWARD: Final[frozenset[Direction]] = frozenset(("backward",))
FORWARD: Final[frozenset[Direction]] = frozenset(("forward",))
BOTH: Final = BACKWARD | FORWARD
NOTHING: Final[frozenset[Direction]] = frozenset()

_TYPES: Final = ("null", "boolean", "object", "array", "number", "string")
#: Say something about a schema, nothing about values. Formats are not checked, so they are among them.
_NOTES: Final = frozenset((
    "$schema", "$id", "$comment", "$defs", "definitions", "$anchor", "title", "description", "default", "examples",
    "deprecated", "readOnly", "writeOnly", "format", "contentEncoding", "contentMediaType", "contentSchema",
))  # fmt: skip
#: Bounds: raised they turn values down (lower ones), or let them in (upper ones).
_LEAST: Final = {"minimum": None, "exclusiveMinimum": None, "minLength": 0, "minItems": 0, "minProperties": 0}
_MOST: Final = dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"))
_OBJECT: Final = frozenset(("properties", "required", "additionalProperties", "patternProperties"))
_ARRAY: Final = frozenset(("items", "prefixItems"))
_LISTS: Final = ("anyOf", "oneOf", "allOf")
_HANDLED: Final = {"type", "enum", "const", "uniqueItems", "$ref", *_LEAST, *_MOST, *_OBJECT, *_ARRAY, *_LISTS}

#: Depth at which two schemas are no longer looked into; a self-reference is seen long before.
MAX_DEPTH: Final = 64
#: Pairs of schemas that are looked at: alternatives within alternatives multiply.
MAX_COMPARISONS: Final = 20_000


class Change(NamedTuple):
    """One difference: where in the payload, what, and which directions it breaks."""

    path: str
    message: str
    breaks: frozenset[Direction]


def changes(old: Any, new: Any) -> list[Change]:
    """Every difference that matters to values, from the old schema to the new one. Both are valid schemas."""
    found = dict.fromkeys(_Comparison(old, new).schemas(old, new, "", ()))
    return list(found)


def breaking(found: list[Change], wanted: Compatibility) -> list[Change]:
    """The changes that `wanted` forbids."""
    forbidden = {"backward": BACKWARD, "forward": FORWARD, "full": BOTH, "none": NOTHING}[wanted]
    return [change for change in found if change.breaks & forbidden]


class _Comparison:
    def __init__(self, old: Any, new: Any) -> None:
        self._old, self._new = old, new
        self._left = MAX_COMPARISONS

    def schemas(self, old: Any, new: Any, path: str, seen: tuple[tuple[int, int], ...]) -> Iterator[Change]:
        old, new = _resolved(self._old, old), _resolved(self._new, new)
        pair = (id(old), id(new))
        if pair in seen or (same_json(old, new) and same_json(self._old, self._new)):
            return
        self._left -= 1
        if len(seen) > MAX_DEPTH or self._left < 0:
            yield Change(path, "is too much to be compared", BOTH)
            return
        seen = (*seen, pair)
        if old is False or new is False or old is None or new is None:
            yield from _nothing(old, new, path)
            return
        one, other = ({} if old is True else old), ({} if new is True else new)
        yield from _types(one, other, path)
        yield from _values(one, other, path)
        yield from _bounds(one, other, path)
        yield from self._objects(one, other, path, seen)
        yield from self._arrays(one, other, path, seen)
        yield from self._alternatives(one, other, path, seen)
        yield from _the_rest(one, other, path)

    def _breaks(self, old: Any, new: Any, seen: tuple[tuple[int, int], ...]) -> frozenset[Direction]:
        return frozenset().union(*(change.breaks for change in self.schemas(old, new, "", seen)))

    # --- objects -----------------------------------------------------------------------------------------

    def _objects(self, old: Json, new: Json, path: str, seen: tuple[tuple[int, int], ...]) -> Iterator[Change]:
        if not (_may_be(old, "object") and _may_be(new, "object")):
            return
        yield from _required(old, new, path)
        had, has = old.get("properties", {}), new.get("properties", {})
        for name in sorted({*had, *has}):
            at = f"{path}.{name}" if path else name
            if name in had and name in has:
                yield from self.schemas(had[name], has[name], at, seen)
            elif name in has:
                yield from self._named(old, has[name], at, seen, new_side=True)
            else:
                yield from self._named(new, had[name], at, seen, new_side=False)
        yield from self._others(old, new, path, seen)
        if not same_json(old.get("patternProperties", {}), new.get("patternProperties", {})):
            yield Change(path, "patternProperties has changed", BOTH)

    def _named(
        self, without: Json, schema: Any, at: str, seen: tuple[tuple[int, int], ...], *, new_side: bool
    ) -> Iterator[Change]:
        """A property that is named on one side only; `without` is the object schema of the other."""
        word = "is new" if new_side else "is gone"
        rest = without.get("additionalProperties", True)
        if rest is False:
            # The side that does not name it turns it down.
            yield Change(at, f"{word}, and the object takes no other properties", FORWARD if new_side else BACKWARD)
        elif isinstance(rest, dict) and rest:
            inner = self._breaks(rest, schema, seen) if new_side else self._breaks(schema, rest, seen)
            yield Change(at, f"{word}; other properties had rules of their own" if inner else word, inner)
        else:
            yield Change(at, word, NOTHING)

    def _others(self, old: Json, new: Json, path: str, seen: tuple[tuple[int, int], ...]) -> Iterator[Change]:
        before, after = old.get("additionalProperties", True), new.get("additionalProperties", True)
        inner = self._breaks(before, after, seen)
        if inner:
            yield Change(path, f"additionalProperties {_direction(inner)}", inner)

    # --- arrays ------------------------------------------------------------------------------------------

    def _arrays(self, old: Json, new: Json, path: str, seen: tuple[tuple[int, int], ...]) -> Iterator[Change]:
        if not (_may_be(old, "array") and _may_be(new, "array")):
            return
        first, then = old.get("prefixItems", []), new.get("prefixItems", [])
        rest, others = old.get("items", True), new.get("items", True)
        for index in range(max(len(first), len(then))):
            one = first[index] if index < len(first) else rest
            other = then[index] if index < len(then) else others
            yield from self.schemas(one, other, f"{path}[{index}]", seen)
        yield from self.schemas(rest, others, f"{path}[]", seen)
        if old.get("uniqueItems", False) != new.get("uniqueItems", False):
            unique = new.get("uniqueItems", False)
            yield Change(path, f"items {'must' if unique else 'need not'} be unique", BACKWARD if unique else FORWARD)

    # --- anyOf, oneOf, allOf -----------------------------------------------------------------------------

    def _alternatives(self, old: Json, new: Json, path: str, seen: tuple[tuple[int, int], ...]) -> Iterator[Change]:
        for keyword in _LISTS:
            before, after = old.get(keyword), new.get(keyword)
            if before is None and after is None:
                continue
            if before is None or after is None:
                narrower = before is None
                word = "is new" if narrower else "is gone"
                yield Change(path, f"{keyword} {word}", BACKWARD if narrower else FORWARD)
                continue
            compare = {"anyOf": self._broken_any, "oneOf": self._broken_one, "allOf": self._broken_all}[keyword]
            broken = compare(before, after, seen)
            if broken:
                yield Change(path, f"{keyword} {_direction(broken)}", broken)

    def _broken_any(self, before: list[Any], after: list[Any], seen: Any) -> frozenset[Direction]:
        kept = all(any("backward" not in self._breaks(one, other, seen) for other in after) for one in before)
        known = all(any("forward" not in self._breaks(one, other, seen) for one in before) for other in after)
        return (NOTHING if kept else BACKWARD) | (NOTHING if known else FORWARD)

    def _broken_one(self, before: list[Any], after: list[Any], seen: Any) -> frozenset[Direction]:
        """What fits two branches fits no more, so each needs a counterpart of its own: one more or less may overlap."""
        left = list(after)
        for one in before:
            same = next((i for i, other in enumerate(left) if not self._breaks(one, other, seen)), None)
            if same is None:
                return BOTH
            del left[same]
        return BOTH if left else NOTHING

    def _broken_all(self, before: list[Any], after: list[Any], seen: Any) -> frozenset[Direction]:
        kept = all(any("backward" not in self._breaks(one, other, seen) for one in before) for other in after)
        known = all(any("forward" not in self._breaks(one, other, seen) for other in after) for one in before)
        return (NOTHING if kept else BACKWARD) | (NOTHING if known else FORWARD)


Json = Mapping[str, Any]


def _resolved(root: Any, schema: Any) -> Any:
    """What a schema that is a bare reference within its document points to; None if that cannot be told."""
    for _ in range(MAX_DEPTH):
        if not isinstance(schema, dict) or "$ref" not in schema:
            return schema
        if set(schema) - {"$ref"} - _NOTES:
            return schema  # a reference with more beside it: the rest decides, the reference is compared as it is
        schema = _pointed(root, schema["$ref"])
    return None


def _pointed(root: Any, reference: str) -> Any:
    if reference == "#":
        return root
    if not reference.startswith("#/"):
        return None
    found = root
    for part in reference[2:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isdigit() and int(name) < len(found):
            found = found[int(name)]
        else:
            return None
    return found


def _nothing(old: Any, new: Any, path: str) -> Iterator[Change]:
    """One of the two takes nothing at all, or is a reference that cannot be followed."""
    if old is None or new is None:
        yield Change(path, "has a reference that cannot be followed", BOTH)
    elif old is False and new is not False:
        yield Change(path, "is allowed now", FORWARD)
    elif new is False and old is not False:
        yield Change(path, "is allowed no longer", BACKWARD)


def _kinds(schema: Json) -> frozenset[str]:
    """The types a schema takes; `integer` is told apart from `number`, which has both."""
    given = schema.get("type")
    if given is None:
        return frozenset((*_TYPES, "integer"))
    kinds = {given} if isinstance(given, str) else set(given)
    return frozenset(kinds | {"integer"} if "number" in kinds else kinds)


def _may_be(schema: Json, kind: str) -> bool:
    return kind in _kinds(schema)


def _types(old: Json, new: Json, path: str) -> Iterator[Change]:
    gone, more = _kinds(old) - _kinds(new), _kinds(new) - _kinds(old)
    if gone:
        yield Change(path, f"may no longer be {_listed(gone)}", BACKWARD)
    if more:
        yield Change(path, f"may now be {_listed(more)}", FORWARD)


def _listed(kinds: frozenset[str]) -> str:
    return ", ".join(sorted(kinds - {"integer"} if "number" in kinds else kinds))


def _values(old: Json, new: Json, path: str) -> Iterator[Change]:
    before, after = _allowed(old), _allowed(new)
    if before is None and after is not None:
        yield Change(path, "may only be one of certain values", BACKWARD)
    elif after is None and before is not None:
        yield Change(path, "may be other values than certain ones", FORWARD)
    elif before is not None and after is not None:
        gone, more = _without(before, after), _without(after, before)
        if gone:
            yield Change(path, f"may no longer be {_shown(gone)}", BACKWARD)
        if more:
            yield Change(path, f"may now be {_shown(more)}", FORWARD)


def _allowed(schema: Json) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    found = schema.get("enum")
    return list(found) if found is not None else None


def _without(values: list[Any], others: list[Any]) -> list[Any]:
    return [value for value in values if not any(same_json(value, other) for other in others)]


def same_json(one: Any, other: Any) -> bool:
    """Equal as JSON: `True` and 1 are two values there and one in Python."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_json(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _shown(values: list[Any]) -> str:
    return ", ".join(f"{value!r:.40}" for value in values[:5]) + (" …" if len(values) > 5 else "")


def _bounds(old: Json, new: Json, path: str) -> Iterator[Change]:
    for keyword in (*_LEAST, *_MOST):
        lowest = keyword in _LEAST
        before, after = old.get(keyword, _LEAST.get(keyword)), new.get(keyword, _LEAST.get(keyword))
        if before == after:
            continue
        narrower = before is None or (after is not None and (after > before if lowest else after < before))
        told = f"{keyword} is now {after}" if after is not None else f"{keyword} is gone"
        yield Change(path, told, BACKWARD if narrower else FORWARD)


def _required(old: Json, new: Json, path: str) -> Iterator[Change]:
    before, after = set(old.get("required", ())), set(new.get("required", ()))
    for name in sorted(after - before):
        yield Change(f"{path}.{name}" if path else name, "is required now", BACKWARD)
    for name in sorted(before - after):
        yield Change(f"{path}.{name}" if path else name, "is required no longer", FORWARD)


def _the_rest(old: Json, new: Json, path: str) -> Iterator[Change]:
    """Keywords of which it cannot be told what a change of them does, but for their coming and going."""
    if old.get("$ref") != new.get("$ref"):
        yield Change(path, "refers to something else", BOTH)
    for keyword in sorted({*old, *new} - _HANDLED - _NOTES):
        if keyword not in old and keyword in _PLAIN:
            yield Change(path, f"{keyword} is new", BACKWARD)
        elif keyword not in new and keyword in _PLAIN:
            yield Change(path, f"{keyword} is gone", FORWARD)
        elif not same_json(old.get(keyword), new.get(keyword)):
            yield Change(path, f"{keyword} has changed in a way that cannot be told to be compatible", BOTH)


#: Rules that stand by themselves: with one more there are fewer values, with one less there are more.
_PLAIN: Final = frozenset(
    ("pattern", "multipleOf", "not", "contains", "propertyNames", "dependentRequired", "dependentSchemas")
)


def _direction(broken: frozenset[Direction]) -> str:
    if broken == BOTH:
        return "takes other values than before"
    return "takes fewer values than before" if broken == BACKWARD else "takes more values than before"
