"""Which addresses the bus may call.

The judgement is passed on the address that a name resolves to, at the moment of connecting, never on the
text of a URL: `127.1`, `0x7f000001` and a name that points inwards are all the same address.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from esb_workers.settings import Network, Settings
from esb_workers.transport.errors import AddressRefused, ConnectFailed, Timeout

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_V4_COMPATIBLE = ipaddress.IPv6Network("::/96")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
# 0.0.0.0/8 reaches this host on Linux; 192.88.99.0/24 is a relay that forwards to any 6to4 address.
_NEVER: tuple[Network, ...] = tuple(ipaddress.ip_network(n) for n in ("0.0.0.0/8", "192.88.99.0/24"))
# Metadata services that stand outside the link-local ranges: AWS and GCP over IPv6, Alibaba, Azure, Oracle.
_METADATA = frozenset(
    ipaddress.ip_address(a)
    for a in ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
)


def effective(address: Address) -> Address:
    """The IPv4 address that an IPv6 address carries inside (mapped, 6to4, NAT64, Teredo), else itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped:
        return address.ipv4_mapped
    if address.sixtofour:
        return address.sixtofour
    if address.teredo:
        return address.teredo[1]
    if address in _NAT64 or (address in _V4_COMPATIBLE and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


@dataclass(frozen=True, slots=True)
class AddressGuard:
    """The judge of addresses: public ones pass, others as configured, some never."""

    allow: tuple[Network, ...]
    deny: tuple[Network, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> AddressGuard:
        """The guard that `ESB_ALLOW_CIDRS` and `ESB_DENY_CIDRS` describe."""
        return cls(settings.allow_cidrs, settings.deny_cidrs)

    def refusal(self, address: Address) -> str | None:
        """Why this address may not be called; None when it may."""
        inner = effective(address)
        if _never_called(inner):
            return "is link-local, a metadata service, multicast or unspecified"
        if _within(inner, self.deny) or _within(address, self.deny):
            return "is denied by ESB_DENY_CIDRS"
        if _within(inner, self.allow) or _within(address, self.allow) or _public(inner):
            return None
        return "is not public and not in ESB_ALLOW_CIDRS"


def _within(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _never_called(address: Address) -> bool:
    if address.is_link_local or address.is_multicast or address.is_unspecified or address in _METADATA:
        return True
    return _within(address, _NEVER) or address == ipaddress.IPv4Address("255.255.255.255")


def _public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    return address.is_global and not address.is_reserved


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One socket address to connect to."""

    family: socket.AddressFamily
    sockaddr: tuple[str, int] | tuple[str, int, int, int]


Lookup = Callable[[str, int], Sequence[Endpoint]]


class Resolver:
    """Names to addresses that may be called. One for the whole process; safe for threads."""

    def __init__(self, guard: AddressGuard, lookup: Lookup | None = None) -> None:
        self._guard = guard
        self._lookup = lookup or look_up
        self._lock = threading.Lock()
        self._under_way: dict[tuple[str, int], Future[Sequence[Endpoint]]] = {}

    def resolve(self, host: str, port: int, deadline: float) -> list[Endpoint]:
        """The allowed addresses of `host`, at least one.

        `deadline` is on `time.monotonic`. Raises AddressRefused when none is allowed, ConnectFailed when the
        name has no address, Timeout when the name server does not answer.
        """
        found = _numeric(host, port) or self._look_up_in_time(host, port, deadline)
        refusals: list[str] = []
        allowed = []
        for endpoint in found:
            address = ipaddress.ip_address(endpoint.sockaddr[0].partition("%")[0])
            reason = self._guard.refusal(address)
            if reason is None:
                allowed.append(endpoint)
            else:
                refusals.append(f"{address} {reason}")
        if not allowed:
            raise AddressRefused(f"{host}: " + ("; ".join(dict.fromkeys(refusals)) or "no address"))
        return allowed

    def _look_up_in_time(self, host: str, port: int, deadline: float) -> Sequence[Endpoint]:
        # getaddrinfo cannot be interrupted, so it runs apart and is left behind when time is up; one
        # look-up per name at a time, so that a dead name server costs one thread per name, not per call.
        key = (host, port)
        with self._lock:
            future = self._under_way.get(key)
            if future is None:
                future = self._under_way[key] = Future()
                threading.Thread(target=self._run, args=(key, future), name="resolve", daemon=True).start()
        try:
            return future.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            raise Timeout(f"{host}: no answer from the name server in time") from None
        except (OSError, UnicodeError) as error:
            raise ConnectFailed(f"{host}: the name cannot be resolved") from error

    def _run(self, key: tuple[str, int], future: Future[Sequence[Endpoint]]) -> None:
        try:
            result = self._lookup(*key)
        except Exception as error:  # whatever it is, those who wait must hear of it
            self._forget(key)
            future.set_exception(error)
        else:
            self._forget(key)
            future.set_result(result)

    def _forget(self, key: tuple[str, int]) -> None:
        with self._lock:
            self._under_way.pop(key, None)


def look_up(host: str, port: int, flags: int = 0) -> list[Endpoint]:
    """The system's answer, in the system's order. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    inet = (socket.AF_INET, socket.AF_INET6)
    return [Endpoint(family, sockaddr) for family, _, _, _, sockaddr in found if family in inet]  # type: ignore[arg-type]


def _numeric(host: str, port: int) -> list[Endpoint]:
    """The address when `host` is one in any spelling the system takes, without asking a name server."""
    try:
        return look_up(host, port, socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return []
