"""Calls over real sockets, to peers that behave and to peers that do not."""

from __future__ import annotations

import gzip
import ipaddress
import select
import socket
import ssl
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import requests

from esb_workers.transport import errors
from esb_workers.transport.adapter import CallAdapter
from esb_workers.transport.address import AddressGuard, Endpoint
from esb_workers.transport.http import Call, HttpCaller, Response

LOOPBACK = AddressGuard(allow=(ipaddress.ip_network("127.0.0.0/8"),))
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


class Peer:
    """A server on a real socket that runs `handle(connection)` for each connection."""

    def __init__(self, handle: Callable[[socket.socket], None]) -> None:
        self.connections = 0
        self.requests: list[bytes] = []
        self._handle = handle
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            self._handle(connection)

    def read(self, connection: socket.socket) -> bytes:
        """One whole request; b"" at the end of the connection."""
        data = b""
        while b"\r\n\r\n" not in data:
            piece = connection.recv(65536)
            if not piece:
                return b""
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        while len(body) < length:
            body += connection.recv(65536)
        self.requests.append(head + b"\r\n\r\n" + body)
        return self.requests[-1]

    def hang_up(self) -> None:
        """Close every open connection, as a server does that restarts."""
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.hang_up()


@contextmanager
def serving(handle: Callable[[Peer, socket.socket], None]) -> Iterator[Peer]:
    peer = Peer(lambda connection: handle(peer, connection))
    try:
        yield peer
    finally:
        peer.close()


@contextmanager
def answering(*answers: bytes, then_close: bool = False) -> Iterator[Peer]:
    """A peer that gives these answers in turn, the last one for ever."""
    left = list(answers)

    def handle(peer: Peer, connection: socket.socket) -> None:
        while peer.read(connection):
            connection.sendall(left.pop(0) if len(left) > 1 else left[0])
            if then_close:
                return

    with serving(handle) as peer:
        yield peer


@pytest.fixture
def caller() -> Iterator[HttpCaller]:
    caller = HttpCaller(LOOPBACK)
    yield caller
    caller.close()


def test_a_call_sends_head_and_body_and_gives_back_the_answer(caller: HttpCaller) -> None:
    with answering(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nX-Note: a\r\nx-note: b\r\n\r\nhi") as peer:
        reply = caller.call("POST", peer.url + "/in?x=ü y", [("X-Id", "7")], b'{"a":1}')
        assert (reply.status, reply.reason, reply.body, reply.truncated) == (201, "Created", b"hi", False)
        assert reply.headers["X-NOTE"] == "a, b"
        assert peer.requests == [
            b"POST /in?x=%%C3%%BC%%20y HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nX-Id: 7\r\nAccept-Encoding: identity\r\n"
            b'Content-Length: 7\r\n\r\n{"a":1}' % peer.port
        ]


def test_connections_are_kept_and_used_again(caller: HttpCaller) -> None:
    with answering(OK) as peer:
        for _ in range(5):
            assert caller.call("GET", peer.url).body == b"hi"
        assert peer.connections == 1


def test_a_kept_connection_that_the_peer_has_closed_is_replaced_unnoticed(caller: HttpCaller) -> None:
    with answering(OK) as peer:
        caller.call("POST", peer.url, body=b"1")
        peer.hang_up()
        assert caller.call("POST", peer.url, body=b"2").status == 200
        assert [request[-1:] for request in peer.requests] == [b"1", b"2"]


def test_a_kept_connection_that_closes_upon_the_request_is_tried_once_more_on_a_new_one(caller: HttpCaller) -> None:
    def handle(peer: Peer, connection: socket.socket) -> None:
        peer.read(connection)
        connection.sendall(OK)
        peer.read(connection)  # the second request on a connection is never answered

    with serving(handle) as peer:
        assert not caller.call("POST", peer.url, body=b"1").resent
        second = caller.call("POST", peer.url, body=b"2")
        assert second.status == 200 and second.resent, "the log of attempts must be able to say so"
        assert peer.connections == 2


def test_a_new_connection_that_closes_without_an_answer_is_lost(caller: HttpCaller) -> None:
    with serving(lambda peer, connection: (peer.read(connection), None)[1]) as peer:
        with pytest.raises(errors.ConnectionLost):
            caller.call("POST", peer.url, body=b"1")
        assert peer.connections == 1


def test_bytes_nobody_asked_for_do_not_become_the_next_answer(caller: HttpCaller) -> None:
    stray = b"HTTP/1.1 500 Stray\r\nContent-Length: 0\r\n\r\n"
    with answering(OK + stray, OK) as peer:
        assert caller.call("GET", peer.url).status == 200
        assert caller.call("GET", peer.url).status == 200
        assert peer.connections == 2


def test_answers_that_say_close_or_end_with_the_connection_are_read_and_not_kept(caller: HttpCaller) -> None:
    with answering(b"HTTP/1.0 200 OK\r\n\r\nall of it", then_close=True) as peer:
        assert caller.call("GET", peer.url).body == b"all of it"
    with answering(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi") as peer:
        caller.call("GET", peer.url)
        caller.call("GET", peer.url)
        assert peer.connections == 2


def test_chunks_are_put_together_and_the_connection_is_kept(caller: HttpCaller) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n3;x=y\r\n yo\r\n0\r\nTrailer: x\r\n\r\n"
    with answering(chunked) as peer:
        assert caller.call("GET", peer.url).body == b"hi yo"
        assert caller.call("GET", peer.url).body == b"hi yo"
        assert peer.connections == 1


def test_interim_answers_are_passed_over(caller: HttpCaller) -> None:
    hints = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    with answering(hints + OK) as peer:
        assert caller.call("POST", peer.url, body=b"x").body == b"hi"
        assert caller.call("POST", peer.url, body=b"x").body == b"hi"
        assert peer.connections == 1


def test_bodiless_answers_leave_the_connection_usable(caller: HttpCaller) -> None:
    with answering(b"HTTP/1.1 204 No Content\r\n\r\n") as peer:
        assert caller.call("POST", peer.url).body == b""
        assert caller.call("POST", peer.url).status == 204
        assert peer.connections == 1


def test_redirects_are_answers_and_are_not_followed(caller: HttpCaller) -> None:
    with answering(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n") as peer:
        assert caller.call("GET", peer.url).status == 302


# --- limits


def test_a_body_is_cut_at_the_limit_and_the_connection_let_go(caller: HttpCaller) -> None:
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n" + b"x" * 300_000
    with answering(endless) as peer:
        reply = caller.call("GET", peer.url, timeout_ms=2000, max_body=1000)
        assert (reply.status, len(reply.body), reply.truncated) == (200, 1000, True)
        caller.call("GET", peer.url, timeout_ms=2000, max_body=1000)
        assert peer.connections == 2


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_answers_are_decoded_and_a_bomb_is_not_unfolded(caller: HttpCaller, encoding: str) -> None:
    pack = gzip.compress if encoding == "gzip" else zlib.compress
    small, bomb = pack(b"hello"), pack(b"\0" * 50_000_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n"
    with answering(*[head % (encoding.encode(), len(data)) + data for data in (small, bomb)]) as peer:
        assert caller.call("GET", peer.url).body == b"hello"
        reply = caller.call("GET", peer.url)
        assert (len(reply.body), reply.truncated) == (64 * 1024, True)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 50 + OK,
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
    ],
)
def test_an_answer_that_is_not_honest_http_is_a_protocol_error(caller: HttpCaller, head: bytes) -> None:
    with answering(head, then_close=True) as peer, pytest.raises(errors.ProtocolError):
        caller.call("GET", peer.url, timeout_ms=3000)


def test_endless_framing_ends_at_the_budget(caller: HttpCaller) -> None:
    chunk = b"1;" + b"e" * 60_000 + b"\r\nx\r\n"
    with answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 20) as peer:
        with pytest.raises(errors.ProtocolError, match="too large"):
            caller.call("GET", peer.url, timeout_ms=3000)


def test_an_answer_that_breaks_off_is_a_lost_connection(caller: HttpCaller) -> None:
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhi", then_close=True) as peer:
        with pytest.raises(errors.ConnectionLost):
            caller.call("GET", peer.url)


# --- the deadline


def assert_times_out(caller: HttpCaller, url: str, body: bytes = b"") -> None:
    began = time.monotonic()
    with pytest.raises(errors.Timeout) as caught:
        caller.call("POST", url, body=body, timeout_ms=300)
    assert 0.2 < time.monotonic() - began < 1.3
    assert caught.value.error_class == "Timeout"


def test_a_peer_that_never_answers_is_left_at_the_deadline(caller: HttpCaller) -> None:
    with serving(lambda peer, connection: time.sleep(3)) as peer:
        assert_times_out(caller, peer.url)


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"])
def test_a_peer_that_drips_is_left_at_the_deadline(caller: HttpCaller, start: bytes) -> None:
    def drip(peer: Peer, connection: socket.socket) -> None:
        peer.read(connection)
        connection.sendall(start)
        for _ in range(60):
            connection.sendall(b"H")
            time.sleep(0.05)

    with serving(drip) as peer:
        assert_times_out(caller, peer.url)


def test_a_peer_that_does_not_read_is_left_at_the_deadline(caller: HttpCaller) -> None:
    with serving(lambda peer, connection: time.sleep(3)) as peer:
        assert_times_out(caller, peer.url, b"x" * 20_000_000)


def test_a_name_server_that_hangs_counts_against_the_deadline() -> None:
    let_go = threading.Event()

    def lookup(host: str, port: int) -> list[Endpoint]:
        let_go.wait(5)
        return []

    assert_times_out(HttpCaller(LOOPBACK, lookup=lookup), "http://slow.example/")
    let_go.set()


# --- connecting


def test_a_refused_connection_is_tried_twice_within_a_second(caller: HttpCaller) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(errors.ConnectFailed) as caught:
        caller.call("GET", f"http://127.0.0.1:{port}/")
    assert 0.04 < time.monotonic() - began < 1
    assert caught.value.error_class == "ServiceUnavailable"


def test_a_server_that_comes_back_within_the_attempt_is_reached() -> None:
    with answering(OK) as peer:
        tries: list[str] = []

        def lookup(host: str, port: int) -> list[Endpoint]:
            tries.append(host)
            if len(tries) == 1:
                raise socket.gaierror(-3, "Temporary failure in name resolution")
            return [Endpoint(socket.AF_INET, ("127.0.0.1", peer.port))]

        caller = HttpCaller(LOOPBACK, lookup=lookup)
        assert caller.call("GET", "http://flaky.example/").status == 200
        caller.close()
        assert len(tries) == 2


def test_the_next_address_is_tried_when_the_first_is_dead() -> None:
    with answering(OK) as peer:
        endpoints = [Endpoint(socket.AF_INET, ("127.0.0.1", port)) for port in (1, peer.port)]
        caller = HttpCaller(LOOPBACK, lookup=lambda host, port: endpoints)
        assert caller.call("GET", "http://two.example/").status == 200
        caller.close()


def test_an_address_outside_the_configuration_is_refused_before_connecting() -> None:
    with answering(OK) as peer:
        with pytest.raises(errors.AddressRefused) as caught:
            HttpCaller(AddressGuard(allow=())).call("GET", peer.url)
        assert peer.connections == 0
        assert not caught.value.transient


@pytest.mark.parametrize(
    "url",
    ["ftp://127.0.0.1/", "http://", "http://user:pw@127.0.0.1/", "http://127.0.0.1:99999/", "file:///etc/passwd"]
    + ["http://a b/", "//127.0.0.1/", "http://[::1", "http://" + "ü" * 300],
)
def test_what_is_no_http_url_is_refused(caller: HttpCaller, url: str) -> None:
    with pytest.raises(errors.RequestRefused):
        caller.call("GET", url)


@pytest.mark.parametrize(
    "header", [("X", "a\r\nY: b"), ("X", "a\nb"), ("X", "a\0"), ("X\r\nY", "a"), ("X Y", "a"), ("", "a")]
)
def test_a_header_cannot_break_out_of_its_line(caller: HttpCaller, header: tuple[str, str]) -> None:
    with pytest.raises(errors.RequestRefused):
        caller.call("GET", "http://127.0.0.1:1/", [header])


def test_hop_by_hop_headers_and_the_senders_own_are_left_out(caller: HttpCaller) -> None:
    names = ["Host", "Content-Length", "Transfer-Encoding", "Connection", "Upgrade", "TE", "Expect", "Keep-Alive"]
    with answering(OK) as peer:
        caller.call("POST", peer.url, [(name, "1") for name in names] + [("X-Kept", "1")], b"ab")
        head = peer.requests[0].partition(b"\r\n\r\n")[0].split(b"\r\n")[2:]
        assert head == [b"X-Kept: 1", b"Accept-Encoding: identity", b"Content-Length: 2"]


def test_a_peer_that_refuses_a_large_body_early_is_heard(caller: HttpCaller) -> None:
    def refuse(peer: Peer, connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 20):
            pass

    with serving(refuse) as peer:
        assert caller.call("POST", peer.url, body=b"x" * 5_000_000).status == 413


# --- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {key} -out {cert} -days 2"
    subject = ["-subj", "/CN=inside.example", "-addext", "subjectAltName=DNS:inside.example"]
    subprocess.run(command.split() + subject, check=True, capture_output=True)
    return cert, key


@contextmanager
def answering_tls(certificate: tuple[Path, Path]) -> Iterator[Peer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    def handle(peer: Peer, connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as tls:
            while peer.read(tls):
                tls.sendall(OK)

    with serving(handle) as peer:
        yield peer


def to(peer: Peer) -> Callable[[str, int], list[Endpoint]]:
    return lambda host, port: [Endpoint(socket.AF_INET, ("127.0.0.1", peer.port))]


def test_tls_checks_the_name_and_keeps_the_connection(certificate: tuple[Path, Path]) -> None:
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    with answering_tls(certificate) as peer:
        caller = HttpCaller(LOOPBACK, tls=trusting, lookup=to(peer))
        for _ in range(3):
            assert caller.call("POST", "https://inside.example/", body=b"x" * 200_000).status == 200
        assert peer.connections == 1
        with pytest.raises(errors.TlsFailed, match="not valid"):
            caller.call("GET", "https://other.example/")
        caller.close()


def test_a_certificate_nobody_vouches_for_is_refused(certificate: tuple[Path, Path]) -> None:
    with answering_tls(certificate) as peer, pytest.raises(errors.TlsFailed):
        HttpCaller(LOOPBACK, lookup=to(peer)).call("GET", "https://inside.example/")


def test_a_peer_that_never_shakes_hands_is_left_at_the_deadline() -> None:
    with serving(lambda peer, connection: time.sleep(3)) as peer:
        assert_times_out(HttpCaller(LOOPBACK), f"https://127.0.0.1:{peer.port}/")


# --- as an adapter of requests


def test_the_adapter_serves_a_requests_session(caller: HttpCaller) -> None:
    with answering(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n{"a": 1}') as peer:
        session = requests.Session()
        session.mount("http://", CallAdapter(caller))
        response = session.post(peer.url, json={"b": 2}, timeout=2, allow_redirects=False)
        assert response.json() == {"a": 1}
        assert response.elapsed.total_seconds() < 2
        assert peer.requests[0].endswith(b'{"b": 2}')


def test_the_adapters_errors_are_those_of_requests_too(caller: HttpCaller) -> None:
    adapter = CallAdapter(caller)
    request = requests.Request("GET", "http://127.0.0.1:1/").prepare()
    with pytest.raises(requests.ConnectionError):
        adapter.send(request, timeout=1)
    with pytest.raises(ValueError, match="not supported"):
        adapter.send(request, verify=False)


# --- in two halves ---------------------------------------------------------------------------------------


def begun(caller: HttpCaller, peer: Peer, body: bytes = b"1", timeout_ms: int = 2000) -> Call:
    call = caller.ready("POST", peer.url, (), body, timeout_ms)
    assert call is not None and call.send()
    return call


def received(call: Call) -> Response | None:
    assert select.select([call.fileno()], [], [], 2)[0]
    call.receive()
    assert call.ended == (call.answer is not None)
    return call.answer


def test_requests_are_sent_before_answers_are_read_each_on_a_connection_of_its_own(caller: HttpCaller) -> None:
    with answering(OK) as peer:
        sent = [begun(caller, peer) for _ in range(3)]
        for one in sent:
            reply = received(one)
            assert reply is not None and (reply.status, reply.body, reply.resent) == (200, b"hi", False)
        assert caller.call("GET", peer.url).status == 200
        assert peer.connections == 3, "they are kept for the next call"


def test_an_answer_that_is_asked_for_again_is_not_that_of_the_next_call(caller: HttpCaller) -> None:
    with answering(OK, OK.replace(b"hi", b"ho")) as peer:
        first = begun(caller, peer)
        taken = received(first)
        second = begun(caller, peer)
        assert second.connection is first.connection
        assert first.result() is taken
        assert second.result().body == b"ho"


def test_an_answer_that_comes_in_parts_is_partial_until_it_is_whole(caller: HttpCaller) -> None:
    go_on = threading.Event()

    def handle(peer: Peer, connection: socket.socket) -> None:
        peer.read(connection)
        connection.sendall(OK[:-1])
        go_on.wait(5)
        connection.sendall(OK[-1:])
        peer.read(connection)

    with serving(handle) as peer:
        sent = begun(caller, peer)
        assert received(sent) is None and sent.partial
        go_on.set()
        reply = received(sent)
        assert reply is not None and reply.body == b"hi"


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(gzip.compress(b"hi", mtime=0))
        + gzip.compress(b"hi", mtime=0),
    ],
)
def test_what_is_no_plain_answer_is_read_by_who_waits_for_it(caller: HttpCaller, data: bytes) -> None:
    with answering(data) as peer:
        sent = begun(caller, peer)
        assert received(sent) is None and not sent.partial
        reply = sent.result()
        assert (reply.status, reply.body) == (200, b"hi")


def test_a_kept_connection_that_closes_upon_what_was_sent_is_followed_by_a_new_one(caller: HttpCaller) -> None:
    def handle(peer: Peer, connection: socket.socket) -> None:
        if peer.read(connection):
            connection.sendall(OK)
            if peer.connections == 1:
                peer.read(connection)
                return
            peer.read(connection)

    with serving(handle) as peer:
        caller.call("POST", peer.url, body=b"1")
        sent = begun(caller, peer, b"2")
        assert received(sent) is None and not sent.partial
        assert sent.result().resent
        assert [request[-1:] for request in peer.requests] == [b"1", b"2", b"2"]


def test_the_deadline_counts_from_the_first_half(caller: HttpCaller) -> None:
    with serving(lambda peer, connection: (peer.read(connection), time.sleep(5))[1]) as peer:
        sent = begun(caller, peer, timeout_ms=300)
        started = time.monotonic()
        with pytest.raises(errors.Timeout):
            sent.result()
        assert time.monotonic() - started < 2


def test_what_could_take_long_to_send_is_not_begun(caller: HttpCaller) -> None:
    with answering(OK) as peer:
        assert caller.ready("POST", peer.url, (), b"x" * 40_000, 1000) is None
        assert caller.ready("POST", peer.url.replace("http:", "https:"), (), b"x", 1000) is None
        assert peer.requests == []
    call = caller.ready("POST", "http://127.0.0.1:1/", (), b"x", 1000)
    assert call is not None and not call.send(), "nobody takes the connection"
