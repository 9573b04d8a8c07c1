"""How single values compare: text without case, wildcards, numbers as doubles, addresses and networks."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from decimal import ROUND_DOWN, Decimal
from typing import Any

#: Numbers are compared within this range and to six places after the point, as EventBridge documents.
NUMBER_LIMIT = 5_000_000_000

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Test = Callable[[Any], bool]

_IPV4 = re.compile(r"[0-9]{1,10}(?:\.[0-9]{1,10}){3}")
_IPV6 = re.compile(r"[0-9a-fA-F:]*:[0-9a-fA-F:]*")


def is_number(value: Any) -> bool:
    """A JSON number: Python's bool is an int and is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def comparable(number: float) -> int | None:
    """`number` in millionths, rest cut off; None beyond ±5e9, where numbers have no order.

    https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html#filtering-numeric-matching
    """
    if not -NUMBER_LIMIT <= number <= NUMBER_LIMIT:
        return None
    if isinstance(number, int):
        return number * 1_000_000
    return int(Decimal(repr(number)).scaleb(6).to_integral_value(ROUND_DOWN))


def same_number(wanted: float) -> Test:
    """The test of a number literal. One that is beyond the range equals only the number written like it."""
    millionths = comparable(wanted)

    def test(value: Any) -> bool:
        if not is_number(value):
            return False
        return (millionths is not None and comparable(value) == millionths) or (
            type(value) is type(wanted) and value == wanted
        )

    return test


def fold(text: str) -> str:
    """`text` with each character's case removed. Not casefold(): one character never equals two (ß and SS)."""
    if text.isascii():
        return text.lower()
    return "".join(c.upper().lower() if len(c.upper()) == 1 else c for c in text)


def parse_address(text: str) -> Address | None:
    """The address that `text` writes, or None. Octets are decimal even with leading zeros, as at AWS."""
    try:
        if _IPV4.fullmatch(text):
            return ipaddress.IPv4Address(bytes(int(octet) for octet in text.split(".")))
        if _IPV6.fullmatch(text):
            address = ipaddress.IPv6Address(text)
            return address.ipv4_mapped or address
    except ValueError:
        return None
    return None


def equals(wanted: Any) -> Test:
    """The test of a literal. Text that is an address compares as an address."""
    if is_number(wanted):
        return same_number(wanted)
    if isinstance(wanted, str):
        address = parse_address(wanted)
        if address is not None:
            return lambda value: value == wanted or (isinstance(value, str) and parse_address(value) == address)
        return lambda value: bool(value == wanted)
    return lambda value: value is wanted  # true, false, null


def in_network(text: str) -> Test:
    """The test of `cidr`. Raises ValueError with the reason for what is no network in AWS's sense."""
    host, slash, bits = text.partition("/")
    if not slash or "/" in bits:
        raise ValueError("is not a CIDR block: one '/' is required")
    address = parse_address(host)
    if address is None:
        raise ValueError(f"{host!r} is not an IP address")
    # A single address is written as a literal; /32 and /128 are refused, as at AWS.
    if not re.fullmatch(r"[0-9]{1,3}", bits) or int(bits) >= address.max_prefixlen:
        raise ValueError(f"the prefix length must be a number from 0 to {address.max_prefixlen - 1}")
    network = ipaddress.ip_network((address, int(bits)), strict=False)

    def test(value: Any) -> bool:
        found = parse_address(value) if isinstance(value, str) else None
        return found is not None and found.version == network.version and found in network

    return test


def wildcard(pattern: str) -> Test:
    """The test of `wildcard`. Raises ValueError with the position for a bad escape or `**`."""
    first, *rest = wildcard_pieces(pattern)
    if not rest:
        return lambda value: bool(value == first)
    *middle, last = rest

    def test(value: Any) -> bool:
        if not isinstance(value, str) or not value.startswith(first):
            return False
        at, end = len(first), len(value) - len(last)
        for literal in middle:
            found = value.find(literal, at, end)
            if found < 0:
                return False
            at = found + len(literal)
        return at <= end and value.endswith(last)

    return test


def wildcard_pieces(pattern: str) -> list[str]:
    """The pieces of literal text between the `*`s of a wildcard pattern; one without `*` is one piece.

    Raises ValueError with the position for a bad escape or `**`.
    """
    pieces, position = [""], 0
    while position < len(pattern):
        character = pattern[position]
        if character == "\\":
            position += 1
            character = pattern[position : position + 1]
            if character not in ("*", "\\") or not character:
                raise ValueError(f"has an invalid escape at position {position}: only \\* and \\\\ are")
            pieces[-1] += character
        elif character == "*":
            if position and pattern[position - 1] == "*" and not pieces[-1]:
                raise ValueError(f"has consecutive wildcard characters at position {position}")
            pieces.append("")
        else:
            pieces[-1] += character
        position += 1
    return pieces
