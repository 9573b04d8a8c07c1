"""Which addresses may be called."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esb_workers.settings import Settings
from esb_workers.transport.address import AddressGuard, Endpoint, Resolver
from esb_workers.transport.errors import AddressRefused, ConnectFailed, Timeout

DEFAULT = AddressGuard.of(Settings.load({}, dotenv=None))
PUBLIC_ONLY = AddressGuard(allow=())


def refused(text: str, guard: AddressGuard = DEFAULT) -> bool:
    return guard.refusal(ipaddress.ip_address(text)) is not None


@pytest.mark.parametrize("text", ["93.184.216.34", "8.8.8.8", "2606:2800:220:1:248:1893:25c8:1946"])
def test_public_addresses_are_always_allowed(text: str) -> None:
    assert not refused(text, DEFAULT)
    assert not refused(text, PUBLIC_ONLY)


@pytest.mark.parametrize("text", ["127.0.0.1", "::1", "10.1.2.3", "172.31.0.1", "192.168.1.1", "100.64.0.9", "fd12::1"])
def test_loopback_and_private_addresses_are_allowed_by_default_and_only_by_configuration(text: str) -> None:
    assert not refused(text, DEFAULT)
    assert refused(text, PUBLIC_ONLY)


@pytest.mark.parametrize(
    "text",
    ["169.254.169.254", "169.254.0.1", "fe80::1", "224.0.0.1", "ff02::1", "0.0.0.0", "0.1.2.3", "::", "255.255.255.255"]
    + ["100.100.100.200", "168.63.129.16", "fd00:ec2::254", "192.88.99.1"],
)
def test_link_local_metadata_multicast_and_unspecified_are_refused_whatever_the_settings_say(text: str) -> None:
    everything = AddressGuard(allow=(ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")))
    assert refused(text, everything)


@pytest.mark.parametrize(
    "text",
    [
        "::ffff:169.254.169.254",  # mapped
        "64:ff9b::a9fe:a9fe",  # NAT64
        "2002:a9fe:a9fe::1",  # 6to4
        "2001:0:5ef5:79fb:0:0:5601:5601",  # Teredo; the client's address is stored inverted
        "::169.254.169.254",  # v4-compatible
    ],
)
def test_an_address_wrapped_in_another_is_judged_by_what_is_inside(text: str) -> None:
    assert refused(text)


@pytest.mark.parametrize("text", ["240.0.0.1", "192.0.2.1", "2001:db8::1", "64:ff9b:1::a00:1", "fec0::1", "198.18.0.1"])
def test_addresses_that_are_neither_public_nor_configured_are_refused(text: str) -> None:
    assert refused(text)


def test_denied_networks_win_over_allowed_and_public_ones() -> None:
    guard = AddressGuard.of(Settings.load({"ESB_DENY_CIDRS": "10.0.0.0/8, 8.8.8.0/24"}, dotenv=None))
    assert refused("10.1.1.1", guard)
    assert refused("8.8.8.8", guard)
    assert refused("::ffff:10.1.1.1", guard)
    assert not refused("127.0.0.1", guard)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_and_its_mapped_form_are_judged_alike(address: ipaddress.IPv4Address) -> None:
    mapped = ipaddress.IPv6Address(b"\x00" * 10 + b"\xff\xff" + address.packed)
    assert (DEFAULT.refusal(address) is None) == (DEFAULT.refusal(mapped) is None)


@given(st.ip_addresses())
def test_every_address_gets_a_judgement(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert DEFAULT.refusal(address) is None or isinstance(DEFAULT.refusal(address), str)


def resolver(*addresses: str, guard: AddressGuard = DEFAULT) -> Resolver:
    def lookup(host: str, port: int) -> list[Endpoint]:
        return [Endpoint(socket.AF_INET6 if ":" in a else socket.AF_INET, (a, port)) for a in addresses]

    return Resolver(guard, lookup)


def soon() -> float:
    return time.monotonic() + 5


def test_of_a_names_addresses_only_the_allowed_ones_are_used() -> None:
    found = resolver("169.254.169.254", "10.0.0.5", "fe80::1").resolve("mixed.example", 80, soon())
    assert [endpoint.sockaddr[0] for endpoint in found] == ["10.0.0.5"]


def test_a_name_that_only_points_where_no_call_may_go_is_refused() -> None:
    with pytest.raises(AddressRefused, match=r"169\.254\.169\.254"):
        resolver("169.254.169.254").resolve("metadata.example", 80, soon())


@pytest.mark.parametrize("spelling", ["127.1", "0x7f.1", "2130706433", "0177.0.0.1", "::ffff:127.0.0.1"])
def test_no_spelling_of_an_address_hides_it(spelling: str) -> None:
    with pytest.raises(AddressRefused):
        resolver(guard=PUBLIC_ONLY).resolve(spelling, 80, soon())


def test_a_name_that_does_not_exist_is_a_failed_connection() -> None:
    def lookup(host: str, port: int) -> list[Endpoint]:
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(ConnectFailed):
        Resolver(DEFAULT, lookup).resolve("nowhere.example", 80, soon())


def test_a_name_server_that_does_not_answer_is_left_behind_at_the_deadline_and_asked_once() -> None:
    asked, let_go = [], threading.Event()

    def lookup(host: str, port: int) -> list[Endpoint]:
        asked.append(host)
        let_go.wait(10)
        return []

    hanging = Resolver(DEFAULT, lookup)
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(Timeout):
            hanging.resolve("slow.example", 80, time.monotonic() + 0.1)
        assert time.monotonic() - began < 1
    let_go.set()
    assert asked == ["slow.example"]
