"""Word of a row over a real Valkey: who hears it, and what happens while the server is away, silent or full."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis

from esb_workers import redis_urls
from esb_workers.app import make_celery
from esb_workers.runtime import hints
from esb_workers.runtime.hints import MOST, Ears, Voice
from esb_workers.runtime.ringer import Ringer
from esb_workers.settings import Settings
from tests.support.servers import TcpValkey, port_of

Eventually = Callable[..., None]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TcpValkey]:
    """A Valkey of this test's own."""
    with TcpValkey(tmp_path) as server:
        yield server


@pytest.fixture
def ears() -> Iterator[Callable[..., Ears]]:
    """Opens ears, and closes them at the end."""
    opened: list[Ears] = []

    def open_(url: str, channel: str | None = "esb_delivery", connected: Callable[[], None] = lambda: None) -> Ears:
        made = Ears(url, channel, connected)  # type: ignore[arg-type]
        opened.append(made)
        made.open()
        return made

    yield open_
    for made in opened:
        made.close()


def voice_of(url: str) -> Voice:
    voice = Voice(url)
    voice.say("esb_delivery")  # it connects when somebody has something to say
    voice.ensure()
    return voice


def pid_of(url: str) -> int:
    client = redis.Redis(connection_pool=redis_urls.connections(url, timeout=1, connect_timeout=1))
    return int(client.info("server")["process_id"])  # type: ignore[index]


def test_a_word_is_heard_once_by_everybody_who_listens_to_its_channel(
    valkey_url: str, ears: Callable[..., Ears], eventually: Eventually
) -> None:
    voice = voice_of(valkey_url)  # first, for it tries out every channel
    first, second, other = ears(valkey_url), ears(valkey_url), ears(valkey_url, "esb_routing")
    eventually(lambda: min(one.fileno() for one in (first, second, other)) >= 0)
    assert voice.say("esb_delivery")
    eventually(first.heard)
    eventually(second.heard)
    assert not first.heard() and not other.heard()


def test_two_buses_on_one_server_do_not_hear_one_another(
    server: TcpValkey, ears: Callable[..., Ears], eventually: Eventually
) -> None:
    ours, theirs = server.url, server.url.removesuffix("/0") + "/1"
    voice = voice_of(ours)
    mine, other = ears(ours), ears(theirs)
    eventually(lambda: min(mine.fileno(), other.fileno()) >= 0)
    assert voice.say("esb_delivery")
    eventually(mine.heard)
    assert not other.heard()


def test_before_it_is_connected_a_voice_says_so_and_does_not_connect_while_a_sender_waits(valkey_url: str) -> None:
    voice = Voice(valkey_url)
    voice.ensure()
    assert voice.say("esb_delivery") is False
    voice.ensure()
    assert voice.say("esb_delivery") is True
    voice.close()
    assert voice.say("esb_delivery") is False
    voice.ensure()
    assert voice.say("esb_delivery") is False, "closed for good"


#: What kombu understands, or lets pass, and redis-py does not.
NOT_FOR_BOTH = ["redis://127.0.0.1/0?connect_timeout=3", "rediss://127.0.0.1/0?ssl_cert_reqs=CERT_REQUIRED"]


@pytest.mark.parametrize("broker", ["", "amqp://guest@127.0.0.1/", "redis://127.0.0.1:1/0"])
def test_where_no_redis_can_be_reached_nothing_is_said_or_heard(
    broker: str, ears: Callable[..., Ears], eventually: Eventually
) -> None:
    assert voice_of(broker).say("esb_delivery") is False
    deaf = ears(broker)
    assert (deaf.fileno(), deaf.heard()) == (-1, False)


@pytest.mark.parametrize("broker", NOT_FOR_BOTH)
def test_ears_that_do_not_understand_a_url_say_so_and_go_on_trying(
    broker: str,
    ears: Callable[..., Ears],
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert voice_of(broker).say("esb_delivery") is False
    tries: list[str] = []
    monkeypatch.setattr(hints, "PAUSE", 0.01)
    monkeypatch.setattr(hints, "_connection", lambda url, real=hints._connection: tries.append(url) or real(url))
    ears(broker)
    eventually(lambda: len(tries) >= 3)
    assert [line.levelname for line in caplog.records if "be heard" in line.getMessage()] == ["WARNING"]


def test_when_the_server_comes_back_words_are_said_and_heard_again(
    server: TcpValkey, ears: Callable[..., Ears], eventually: Eventually
) -> None:
    connected: list[bool] = []
    listening, voice = ears(server.url, connected=lambda: connected.append(True)), voice_of(server.url)
    eventually(lambda: connected == [True])
    server.stop()
    eventually(lambda: not listening.heard() and listening.fileno() < 0)
    eventually(lambda: not voice.say("esb_delivery"))
    server.start()
    eventually(lambda: connected == [True, True])

    def heard() -> bool:
        voice.ensure()
        voice.say("esb_delivery")
        return listening.heard()

    eventually(heard)


def test_words_that_only_kombu_could_bring_keep_nobody_from_ringing(
    server: TcpValkey, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    ringer = Ringer(make_celery(Settings.load({}, None, broker_url=f"{server.url}?connect_timeout=3")))
    ringer.voice.say("esb_delivery")
    bells = redis.Redis(connection_pool=redis_urls.connections(server.url, timeout=1, connect_timeout=1))
    for pool in ("routing", "delivery", "orchestration"):
        ringer.ring(pool)
        eventually(lambda pool=pool: bells.llen(pool) == 1)
    ringer.close()
    assert ringer.failures == 0
    assert [line.levelname for line in caplog.records if "NOTIFY" in line.getMessage()] == ["WARNING"]


@pytest.mark.parametrize("rights", ["+@all -client &*", "+@all resetchannels &/0.*"])
def test_a_user_who_may_not_say_it_leaves_it_to_the_database(server: TcpValkey, rights: str) -> None:
    admin = redis.Redis(connection_pool=redis_urls.connections(server.url, timeout=1, connect_timeout=1))
    admin.execute_command("ACL", "SETUSER", "bus", "on", ">secret", "~*", *rights.split())
    port = port_of(server.url)
    voice = voice_of(f"redis://bus:secret@127.0.0.1:{port}/0")
    assert voice._warned and voice.say("esb_delivery") is False


def test_what_was_said_while_nobody_listened_is_taken_in_by_parts(
    valkey_url: str, ears: Callable[..., Ears], eventually: Eventually
) -> None:
    listening, voice = ears(valkey_url), voice_of(valkey_url)
    eventually(lambda: listening.fileno() >= 0)
    listening.heard()
    for _ in range(2 * MOST + 1):
        assert voice.say("esb_delivery")
    for _ in range(3):
        eventually(listening.heard)


def test_a_server_that_is_known_to_hang_is_not_spoken_to(server: TcpValkey, eventually: Eventually) -> None:
    """Its kernel would take in words for hours, and nobody would hear them."""
    ringer = Ringer(make_celery(Settings.load({}, None, broker_url=server.url)))

    def speaks() -> bool:
        ringer.ring("delivery")
        return ringer.voice.say("esb_delivery")

    eventually(speaks)
    hung = psutil.Process(pid_of(server.url))
    hung.suspend()
    try:
        eventually(lambda: not speaks())
    finally:
        hung.resume()
    eventually(speaks)
    ringer.close()


def test_a_server_that_hangs_keeps_a_sender_for_a_moment_and_only_once(server: TcpValkey) -> None:
    voice = voice_of(server.url)
    voice._said["esb_delivery"] = voice._connection.pack_command("PUBLISH", "x", "x" * 65536)  # it is full the sooner
    hung = psutil.Process(pid_of(server.url))
    hung.suspend()
    try:
        took = []
        for _ in range(1000):  # until all that lies between the two is full
            began = time.monotonic()
            said = voice.say("esb_delivery")
            took.append(time.monotonic() - began)
            if not said:
                break
        assert not said and max(took) < 1.0
        began = time.monotonic()
        voice.ensure()
        assert voice.say("esb_delivery") is False
        assert time.monotonic() - began < 0.1, "it was tried a moment ago"
    finally:
        hung.resume()
