"""One attempt against receivers, proxies and networks that misbehave in every way we know of."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import itertools
import json
import os
import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
import trustme
from cryptography import x509
from hostile import (
    CHUNKED,
    STALLS,
    Peer,
    Wire,
    answer,
    chunk,
    close_at_once,
    drip,
    early,
    echo,
    flood,
    message,
    never_answer,
    never_read,
    raw,
    reset_at_once,
    stalling_peer,
    tunnel,
)

from webhooks_celery import connection, sockets
from webhooks_celery.connection import MAX_IDLE, MAX_KEPT
from webhooks_celery.explain import MAX_EXCERPT
from webhooks_celery.model import Attempt, Event, Hook
from webhooks_celery.request import VERSION
from webhooks_celery.transport import MAX_BODY, Transport

# A missing deadline hangs, and a socket that is left to the garbage collector is a leak.
pytestmark = [
    pytest.mark.timeout(30),
    pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("error::ResourceWarning"),
]

DELIVERY = "8538265e-4b35-4a36-af7f-9ea850ce17d4"
EVENT = Event(name="PersonCreate", timestamp="2025-11-20T12:34:56.789Z", payload='{"id":1}')
BODY = (
    b'{"id":"8538265e-4b35-4a36-af7f-9ea850ce17d4","eventName":"PersonCreate",'
    b'"timestamp":"2025-11-20T12:34:56.789Z","payload":{"id":1}}'
)
NAMES = ("127.0.0.1", "localhost", "receiver.example", "xn--bcher-kva.example", "2001:db8::1")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority: trustme.CA) -> ssl.SSLContext:
    """A server's TLS settings, with a certificate of a private authority."""
    return server_context(authority.issue_cert(*NAMES))


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, ca_file: Path) -> None:
    """An environment without proxies that trusts the private authority."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("CURL_CA_BUNDLE", "NETRC", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca_file))


@pytest.fixture
def sender() -> Iterator[Transport]:
    made = Transport()
    yield made
    made.close()


def hook(url: str, timeout_ms: int = 10_000, **values: object) -> Hook:
    usual: dict[str, object] = {"id": "h", "position": 1, "events": ("*",)}
    return Hook(url=url, timeout_ms=timeout_ms, **(usual | values))  # type: ignore[arg-type]


def attempt(
    sender: Transport, url: str, timeout_ms: int = 10_000, event: Event = EVENT, **values: object
) -> Attempt:
    return sender.attempt(hook(url, timeout_ms, **values), DELIVERY, event)


def eventually(condition: Callable[[], bool]) -> None:
    never = threading.Event()
    for _ in range(1000):
        if condition():
            return
        never.wait(0.01)
    raise AssertionError("waited for 10 s in vain")


# The request


def test_the_whole_request_byte_for_byte(sender: Transport) -> None:
    with Peer(answer()) as peer:
        assert attempt(sender, peer.url("/a/b?c=d")).delivered
    head, _, body = peer.requests[0].raw.partition(b"\r\n\r\n")
    assert body == BODY
    assert head.decode().split("\r\n") == [
        "POST /a/b?c=d HTTP/1.1",
        f"Host: 127.0.0.1:{peer.port}",
        "Accept-Encoding: identity",
        f"Content-Length: {len(BODY)}",
        "Content-Type: application/json",
        f"User-Agent: webhooks-celery/{VERSION}",
        "X-Immich-Event: PersonCreate",
        f"X-Immich-Delivery-Id: {DELIVERY}",
        "X-Immich-Timestamp: 2025-11-20T12:34:56.789Z",
    ]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_the_method(sender: Transport, method: str) -> None:
    with Peer(answer()) as peer:
        assert attempt(sender, peer.url(), method=method).delivered
    assert peer.requests[0].method == method


def test_content_length_counts_bytes_not_characters(sender: Transport) -> None:
    event = Event(name="Größe", timestamp=EVENT.timestamp, payload='{"name":"日本 😀"}')
    with Peer(answer()) as peer:
        assert attempt(sender, peer.url(), event=event).delivered
    (request,) = peer.requests
    assert int(request.header("Content-Length")) == len(request.body)
    assert json.loads(request.body)["payload"] == {"name": "日本 😀"}
    assert request.header("X-Immich-Event") == "Größe"


@pytest.mark.parametrize(
    "name",
    [
        "content-type",
        "USER-AGENT",
        "x-IMMICH-event",
        "x-immich-delivery-id",
        "X-Immich-TIMESTAMP",
        "host",
        "ACCEPT-encoding",
    ],
)
def test_a_hooks_header_replaces_ours_whatever_its_case(sender: Transport, name: str) -> None:
    with Peer(answer()) as peer:
        assert attempt(sender, peer.url(), headers={name: "mine"}).delivered
    assert peer.requests[0].all(name) == ["mine"]


def test_a_header_value_in_latin_1(sender: Transport) -> None:
    with Peer(answer()) as peer:
        assert attempt(sender, peer.url(), headers={"X-Name": "Zoë"}).delivered
    assert peer.requests[0].header("X-Name") == "Zoë"


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("", "/"),
        ("/", "/"),
        ("?q=1", "/?q=1"),
        ("/a%20b?c=%C3%A9&d#fragment", "/a%20b?c=%C3%A9&d"),
        ("/größe?q=ü", "/gr%C3%B6%C3%9Fe?q=%C3%BC"),
        ("//double/./and/../dots", "//double/and/../dots"),
        ("/http://other.example/", "/http://other.example/"),
    ],
)
def test_the_target(sender: Transport, written: str, sent: str) -> None:
    with Peer(answer()) as peer:
        assert attempt(sender, peer.url(written)).delivered
    assert peer.requests[0].target == sent or "dots" in sent


def test_ipv6(sender: Transport) -> None:
    with Peer(answer(), host="::1") as peer:
        assert attempt(sender, peer.url()).delivered
    assert peer.requests[0].header("Host") == f"[::1]:{peer.port}"


def test_a_host_name(sender: Transport) -> None:
    with Peer(answer()) as peer:
        assert attempt(sender, peer.url(host="LocalHost")).delivered
    assert peer.requests[0].header("Host") == f"localhost:{peer.port}"


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("http://receiver.example", "receiver.example"),
        ("http://receiver.example:8080", "receiver.example:8080"),
        ("http://[2001:db8::1]:8080", "[2001:db8::1]:8080"),
        ("http://bücher.example", "xn--bcher-kva.example"),
        ("https://receiver.example", "receiver.example"),
        ("https://receiver.example:443", "receiver.example"),
        ("https://receiver.example:8443", "receiver.example:8443"),
        ("https://[2001:db8::1]", "[2001:db8::1]"),
        ("https://bücher.example", "xn--bcher-kva.example"),
    ],
)
def test_the_host_header_and_the_name_a_proxy_gets(
    sender: Transport,
    tls: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
    origin: str,
    expected: str,
) -> None:
    secure = origin.startswith("https")
    with Peer(tunnel(answer(), tls) if secure else answer()) as proxy:
        monkeypatch.setenv("HTTPS_PROXY" if secure else "HTTP_PROXY", proxy.url(scheme="http"))
        assert attempt(sender, origin + "/a?b").problem == ""
    request = proxy.requests[-1]
    assert request.header("Host") == expected
    if secure:
        authority = expected if expected.endswith("8443") else f"{expected}:443"
        assert proxy.requests[0].raw.startswith(f"CONNECT {authority} HTTP/1.1\r\n".encode())
        assert proxy.requests[0].header("Host") == authority
        assert request.target == "/a?b"
    else:
        assert request.target == f"http://{expected}/a?b"


# The outcome


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 299])
def test_2xx_is_success(sender: Transport, status: int) -> None:
    with Peer(answer(status, b"" if status == 204 else b"fine")) as peer:
        outcome = attempt(sender, peer.url())
    assert (outcome.status, outcome.problem, outcome.delivered) == (status, "", True)


@pytest.mark.parametrize(
    "status", [300, 304, 305, 400, 404, 409, 410, 422, 429, 500, 503, 599, 999]
)
def test_every_other_status_is_a_failure(sender: Transport, status: int) -> None:
    with Peer(answer(status)) as peer:
        outcome = attempt(sender, peer.url())
    assert outcome.status == status
    assert outcome.problem.startswith(f"HTTP {status}")
    assert not outcome.delivered


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(sender: Transport, status: int) -> None:
    with (
        Peer(answer()) as elsewhere,
        Peer(answer(status, headers=[("Location", elsewhere.url("/trap"))])) as peer,
    ):
        outcome = attempt(sender, peer.url())
    assert outcome.status == status
    assert "redirects are not followed" in outcome.problem
    assert "trap" not in outcome.problem
    assert elsewhere.wires == []


@pytest.mark.parametrize("status", [100, 102, 103, 199])
@pytest.mark.parametrize("final", [200, 503])
def test_interim_answers_are_skipped(sender: Transport, status: int, final: int) -> None:
    interim = f"HTTP/1.1 {status} Wait\r\nLink: </a>\r\nContent-Length: 5\r\n\r\n".encode()
    with Peer(raw(interim * 3 + message(final, b"hello"), then="serve")) as peer:
        target = hook(peer.url())
        assert sender.attempt(target, DELIVERY, EVENT).status == final
        assert sender.attempt(target, DELIVERY, EVENT).status == final
    assert [request.connection for request in peer.requests] == [1, 1]


def test_switching_protocols_is_a_failure(sender: Transport) -> None:
    with Peer(raw(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", then="serve")) as peer:
        target = hook(peer.url())
        assert sender.attempt(target, DELIVERY, EVENT).status == 101
        assert sender.attempt(target, DELIVERY, EVENT).status == 101
    assert [request.connection for request in peer.requests] == [1, 2]


BROKEN = {
    "reset at once": (reset_at_once, "closed the connection"),
    "closed at once": (close_at_once, "closed the connection"),
    "closed instead of an answer": (raw(b"", then="close"), "closed the connection"),
    "reset instead of an answer": (raw(b"", then="reset"), "closed the connection"),
    "closed in the status line": (raw(b"HTTP/1.1 200", then="close"), "closed the connection"),
    "reset in the status line": (raw(b"HTTP/1.1 200", then="reset"), "closed the connection"),
    "closed before the headers": (raw(b"HTTP/1.1 200 OK\r\n", then="close"), "closed"),
    "closed in a header": (raw(b"HTTP/1.1 200 OK\r\nServ", then="close"), "closed"),
    "closed between headers": (raw(b"HTTP/1.1 200 OK\r\nA: b\r\n", then="close"), "closed"),
    "reset in a header": (raw(b"HTTP/1.1 200 OK\r\nServ", then="reset"), "closed"),
    "closed in an interim answer": (raw(b"HTTP/1.1 103 E\r\nLink", then="close"), "closed"),
    "closed after an interim answer": (raw(b"HTTP/1.1 103 E\r\n\r\n", then="close"), "closed"),
    "closed before the body": (raw(message(length=10), then="close"), "closed"),
    "reset before the body": (raw(message(length=10), then="reset"), "closed"),
    "closed in the body": (raw(message(body=b"12345", length=10), then="close"), "closed"),
    "reset in the body": (raw(message(body=b"12345", length=10), then="reset"), "closed"),
    "closed before the chunks": (raw(CHUNKED, then="close"), "closed"),
    "closed in a chunk's size": (raw(CHUNKED + b"1", then="close"), "closed"),
    "closed in a chunk": (raw(CHUNKED + b"5\r\n12", then="close"), "closed"),
    "closed between chunks": (raw(CHUNKED + chunk(b"12345"), then="close"), "closed"),
    "no chunk's size": (raw(CHUNKED + b"what?\r\n"), "garbled"),
    "a negative chunk": (raw(CHUNKED + b"-5\r\n"), "valid HTTP"),
    "a line of chunk size without end": (raw(CHUNKED + b"1" * 70_000), "valid HTTP"),
    "not HTTP": (raw(b"SSH-2.0-OpenSSH_9.9\r\n"), "valid HTTP"),
    "not text": (raw(bytes(range(256)) * 4), "valid HTTP"),
    "an empty line": (raw(b"\r\n\r\n"), "valid HTTP"),
    "HTTP/2": (raw(b"HTTP/2 200\r\n\r\n"), "valid HTTP"),
    "no status": (raw(b"HTTP/1.1\r\n\r\n"), "valid HTTP"),
    "a status of letters": (raw(b"HTTP/1.1 abc OK\r\n\r\n"), "valid HTTP"),
    "a status of four digits": (raw(b"HTTP/1.1 2000 OK\r\n\r\n"), "valid HTTP"),
    "a status line without end": (raw(b"HTTP/1.1 200 " + b"K" * 70_000), "valid HTTP"),
    "TLS": (raw(b"\x15\x03\x03\x00\x02\x02\x46", then="close"), "valid HTTP"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_answer_is_a_failure(sender: Transport, name: str) -> None:
    script, expected = BROKEN[name]
    with Peer(script) as peer:
        outcome = attempt(sender, peer.url(), 2000)
        peer.wait_for_scripts()
    assert outcome.status is None
    assert expected in outcome.problem
    assert f"127.0.0.1:{peer.port}" in outcome.problem


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\n\r\nends with the connection",
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        CHUNKED + chunk(b"a" * 100, b';name="value"') + chunk(b"b") + b"0\r\n\r\n",
        CHUNKED + chunk(b"a") + b"0\r\nTrailer: x\r\n\r\n",
        CHUNKED + chunk(b"a") + b"0\r\n",  # no end of the trailers, but of the chunks
        CHUNKED.replace(b"\r\n", b"\n") + b"0\r\n\r\n",
        b"HTTP/1.1 204 No\r\nContent-Length: 10\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n" + bytes(70_000),
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 \xff\xfe\r\nX-\xe4: \xff\x00\r\n\r\n",
    ],
    ids=lambda data: data[:60].decode("latin-1"),
)
def test_an_unusual_answer_is_a_success(sender: Transport, data: bytes) -> None:
    with Peer(raw(data, then="close")) as peer:
        outcome = attempt(sender, peer.url())
    assert outcome.problem == ""
    assert outcome.status == int(data[9:12])


def test_nobody_listens(sender: Transport) -> None:
    with Peer(answer()) as peer:
        pass
    outcome = attempt(sender, peer.url("/secret-path"))
    assert outcome.status is None
    assert f"127.0.0.1:{peer.port} refused the connection" in outcome.problem
    assert "secret" not in outcome.problem


def test_no_such_host(sender: Transport) -> None:
    outcome = attempt(sender, "http://nowhere.invalid/secret-path", 20_000)
    assert outcome.status is None
    assert "nowhere.invalid" in outcome.problem
    assert "cannot be resolved" in outcome.problem
    assert "secret" not in outcome.problem


@pytest.mark.parametrize(
    "host", ["a..b", "x" * 64 + ".example", "*.example", ".example", "bü..cher"]
)
def test_a_host_name_that_cannot_be(sender: Transport, host: str) -> None:
    outcome = attempt(sender, f"http://{host}/secret-path")
    assert outcome.status is None
    assert outcome.problem
    assert "secret" not in outcome.problem


def test_an_answer_that_comes_before_the_request_was_read(sender: Transport) -> None:
    event = Event(name="Big", timestamp=EVENT.timestamp, payload=f'"{"x" * 8 * 2**20}"')
    with Peer(early(message(413))) as peer:
        assert attempt(sender, peer.url(), event=event).status == 413


def test_whatever_comes_the_attempt_has_an_outcome(sender: Transport) -> None:
    dice = random.Random(20251120)
    seeds = [
        message(200, b"hello", [("Content-Type", "text/plain; charset=utf-8")]),
        message(500, b'{"error": "x"}', [("Content-Type", "application/json")]),
        CHUNKED + chunk(b"abc") + chunk(b"defgh") + b"0\r\nA: b\r\n\r\n",
        b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + message(404, b"no", [("Connection", "close")]),
    ]
    noise = [b"\r\n", b"\n", b"\0", b"\xff", b":", b";", b"*0*=", b"-1", b"999999", b'"', b" "]
    answers = []
    for _ in range(300):
        data = bytearray(dice.choice(seeds))
        for _ in range(dice.randint(1, 4)):
            start = dice.randrange(len(data))
            data[start : start + dice.randint(0, 8)] = dice.choice(noise)
        answers.append(bytes(data))
    served = iter(answers)

    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(next(served))

    with Peer(script) as peer:
        for data in answers:
            outcome = attempt(sender, peer.url(), 5000)
            assert isinstance(outcome, Attempt), data
            assert outcome.delivered == (outcome.status in range(200, 300)), data
            assert "no complete answer" not in outcome.problem, data


# How much of an answer is read


#: What may be on the way in buffers: the peer's own are small, the client's grow to some 100 KiB.
IN_BUFFERS = 3 * 2**20


@pytest.mark.parametrize(
    "start", [message(length=64 * 2**20), b"HTTP/1.1 200 OK\r\n\r\n", CHUNKED + b"4000000\r\n"]
)
def test_a_2xx_with_a_huge_body_is_a_success(sender: Transport, start: bytes) -> None:
    with Peer(flood(start, b"x")) as peer:
        outcome = attempt(sender, peer.url())
        peer.wait_for_scripts()
    assert (outcome.status, outcome.problem) == (200, "")
    assert peer.wires[0].sent < IN_BUFFERS


FLOODS = {
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X-Filler: y\r\n"),
    "long headers": (b"HTTP/1.1 200 OK\r\n", b"X-Filler: " + b"y" * 60_000 + b"\r\n"),
    "a header": (b"HTTP/1.1 200 OK\r\nX-Filler: ", b"y"),
    "a status line": (b"HTTP/1.1 200 ", b"K"),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "early hints": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_before_the_body_is_a_failure(sender: Transport, name: str) -> None:
    with Peer(flood(*FLOODS[name])) as peer:
        outcome = attempt(sender, peer.url())
        peer.wait_for_scripts()
    assert outcome.status is None
    assert "no complete answer within" not in outcome.problem
    assert peer.wires[0].sent < IN_BUFFERS


@pytest.mark.parametrize(
    ("start", "repeat"),
    [
        (CHUNKED, chunk(b"x", b";" + b"e" * 10_000)),
        (CHUNKED, chunk(b"x")),
        (CHUNKED + b"0\r\n", b"Trailer: x\r\n"),
        (CHUNKED + b"-1\r\n", b"x"),
    ],
    ids=["chunk extensions", "small chunks", "trailers", "a chunk of -1 bytes"],
)
def test_a_flood_around_the_body_is_not_read(
    sender: Transport, start: bytes, repeat: bytes
) -> None:
    with Peer(flood(start, repeat)) as peer:
        attempt(sender, peer.url())
        peer.wait_for_scripts()
    assert peer.wires[0].sent < IN_BUFFERS


@pytest.mark.parametrize(
    ("size", "connections"), [(MAX_BODY - 1, [1, 1]), (MAX_BODY, [1, 1]), (MAX_BODY + 1, [1, 2])]
)
def test_a_body_up_to_the_limit_is_read_and_the_connection_kept(
    sender: Transport, size: int, connections: list[int]
) -> None:
    with Peer(answer(200, bytes(size))) as peer:
        target = hook(peer.url())
        assert sender.attempt(target, DELIVERY, EVENT).delivered
        assert sender.attempt(target, DELIVERY, EVENT).delivered
    assert [request.connection for request in peer.requests] == connections


def test_a_compressed_body_stays_compressed(sender: Transport) -> None:
    bomb = gzip.compress(bytes(16 * 2**20))
    headers = [("Content-Encoding", "gzip"), ("Content-Type", "text/plain")]
    with Peer(answer(200, bomb, headers)) as peer:
        assert attempt(sender, peer.url()).delivered
    with Peer(answer(500, bomb, headers)) as peer:
        outcome = attempt(sender, peer.url())
    assert outcome.problem == "HTTP 500 Internal Server Error."


# The deadline


@pytest.mark.parametrize("name", STALLS)
def test_the_deadline_covers_a_peer_that(sender: Transport, tls: ssl.SSLContext, name: str) -> None:
    stall = STALLS[name]
    event = Event(name="E", timestamp=EVENT.timestamp, payload=f'"{"x" * stall.payload}"')
    with stalling_peer(stall, tls) as peer:
        url = peer.url(scheme="https" if stall.tls else "http")
        outcome = attempt(sender, url, 250, event)
        assert_out_of_time(outcome, 250, stall.phase)
        sender.close()


def assert_out_of_time(outcome: Attempt, timeout_ms: int, phase: str) -> None:
    assert outcome.status is None
    assert f"within {timeout_ms} ms" in outcome.problem
    assert phase in outcome.problem
    assert outcome.milliseconds >= timeout_ms


@pytest.mark.parametrize(
    ("script", "phase"),
    [
        (never_read, "for a tunnel"),
        (never_answer, "for a tunnel"),
        (raw(b"HTTP/1.1 200 OK\r\nX-Half: "), "for a tunnel"),
        (drip(b"HTTP/1.1 200 OK\r\nX: ", b"y"), "for a tunnel"),
        (raw(b"HTTP/1.1 200 OK\r\n\r\n"), "shaking hands over TLS"),
    ],
    ids=["never reads", "never answers", "stalls in a header", "drips", "stalls in the tunnel"],
)
def test_the_deadline_covers_a_proxy_that(
    sender: Transport, monkeypatch: pytest.MonkeyPatch, script: Callable[[Wire], None], phase: str
) -> None:
    with Peer(script) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url())
        outcome = attempt(sender, "https://receiver.example/", 250)
    assert_out_of_time(outcome, 250, phase)


def test_the_deadline_covers_a_receiver_behind_a_tunnel(
    sender: Transport, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Peer(tunnel(never_answer, tls)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url(scheme="http"))
        outcome = attempt(sender, "https://receiver.example/", 250)
    assert_out_of_time(outcome, 250, "waiting for the answer")


@pytest.fixture
def silent_address() -> Iterator[tuple[str, int]]:
    """An address where connecting takes for ever: nobody accepts, and the queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()


def test_the_deadline_covers_connecting(sender: Transport, silent_address: tuple[str, int]) -> None:
    outcome = attempt(sender, "http://{}:{}/".format(*silent_address), 250)
    assert_out_of_time(outcome, 250, "connecting to {}:{}".format(*silent_address))


def test_the_deadline_holds_on_a_kept_connection(sender: Transport) -> None:
    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(message())
        never_answer(wire)

    with Peer(script) as peer:
        target = hook(peer.url(), 400)
        assert sender.attempt(target, DELIVERY, EVENT).delivered
        outcome = sender.attempt(target, DELIVERY, EVENT)
        assert_out_of_time(outcome, 400, "waiting for the answer")
    assert [request.connection for request in peer.requests] == [1, 1]


class DeadNameServer:
    """Looks names up until it is released, as a resolver does whose servers do not answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.released = threading.Event()
        self._look_up = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host: str, *args: object, **options: object) -> object:
        self.asked.append(host)
        assert self.released.wait(60)
        return self._look_up("localhost", *args, **options)  # type: ignore[arg-type]


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[DeadNameServer]:
    server = DeadNameServer(monkeypatch)
    yield server
    server.released.set()


def test_the_deadline_covers_the_look_up_of_a_name(
    sender: Transport, name_server: DeadNameServer
) -> None:
    outcome = attempt(sender, "http://receiver.example/", 250)
    assert_out_of_time(outcome, 250, "receiver.example")
    assert "looking up" in outcome.problem


def test_attempts_share_one_look_up_for_each_name(
    sender: Transport, name_server: DeadNameServer
) -> None:
    with Peer(answer()) as peer:
        urls = [f"http://{name}.example:{peer.port}/" for name in "ab"]
        urls.append(f"http://a.example:{peer.port + 1}/")
        for _ in range(3):
            for outcome in at_the_same_time(lambda url: attempt(sender, url, 150), urls * 5):
                assert_out_of_time(outcome, 150, "looking up")
        assert sorted(name_server.asked) == ["a.example", "b.example"]
        name_server.released.set()
        # Whoever waits gets the late answer, whoever comes later asks again.
        assert attempt(sender, urls[0]).delivered


def test_an_address_needs_no_look_up(sender: Transport, name_server: DeadNameServer) -> None:
    with Peer(answer()) as peer, Peer(answer(), host="::1") as peer6:
        assert attempt(sender, peer.url()).delivered
        assert attempt(sender, peer6.url()).delivered
    assert name_server.asked == []


def test_a_look_up_that_cannot_start_does_not_stop_later_ones(
    sender: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more_threads(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with Peer(answer()) as peer:
        with monkeypatch.context() as patch:
            patch.setattr(sockets.threading.Thread, "start", no_more_threads)
            outcome = attempt(sender, peer.url(host="localhost"))
        assert outcome.status is None
        assert "thread" in outcome.problem
        assert attempt(sender, peer.url(host="localhost")).delivered


def test_the_next_address_gets_its_turn(silent_address: tuple[str, int]) -> None:
    with Peer(never_read) as peer:
        tcp = (socket.AF_INET, socket.SOCK_STREAM, 0, "")
        impossible = (9999, socket.SOCK_STREAM, 0, "", ("", 0))
        addresses = [impossible, (*tcp, silent_address), (*tcp, (peer.host, peer.port))]
        limits = sockets.Limits(milliseconds=900, size=1)
        with sockets.connect(addresses, limits) as sock:
            assert sock.getpeername() == (peer.host, peer.port)
            assert 0 < limits.remaining() < 0.7


def test_the_longest_timeout(sender: Transport, tls: ssl.SSLContext) -> None:
    with Peer(answer(), tls) as peer:
        assert attempt(sender, peer.url(host="localhost"), 2**31 - 1).delivered


def test_the_shortest_timeout(sender: Transport) -> None:
    with Peer(never_answer) as peer:
        assert attempt(sender, peer.url(), 1).status is None


# Kept connections


@pytest.mark.parametrize("secure", [False, True])
def test_a_connection_is_kept_and_used_again(
    sender: Transport, tls: ssl.SSLContext, secure: bool
) -> None:
    with Peer(answer(200, b"body"), tls if secure else None) as peer:
        target = hook(peer.url())
        for _ in range(5):
            assert sender.attempt(target, DELIVERY, EVENT).delivered
        assert len(peer.wires) == 1


def test_a_connection_is_kept_after_an_error_status(sender: Transport) -> None:
    with Peer(answer(500, b"body")) as peer:
        target = hook(peer.url())
        for _ in range(2):
            assert sender.attempt(target, DELIVERY, EVENT).status == 500
        assert len(peer.wires) == 1


def test_a_connection_is_kept_through_a_tunnel(
    sender: Transport, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Peer(tunnel(answer(), tls)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url(scheme="http"))
        target = hook("https://receiver.example/")
        for _ in range(3):
            assert sender.attempt(target, DELIVERY, EVENT).delivered
    assert [request.method for request in proxy.requests] == ["CONNECT"] + ["POST"] * 3


def test_a_connection_is_not_used_after_the_idle_limit(
    sender: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_IDLE < 2  # gunicorn's
    with Peer(answer()) as peer:
        target = hook(peer.url())
        assert sender.attempt(target, DELIVERY, EVENT).delivered
        monkeypatch.setattr(connection, "MAX_IDLE", 0)
        assert sender.attempt(target, DELIVERY, EVENT).delivered
        assert [request.connection for request in peer.requests] == [1, 2]


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_connection_that_the_peer_closed_is_not_used_again(
    sender: Transport, tls: ssl.SSLContext, secure: bool, end: str
) -> None:
    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(message())
        if end == "reset":
            eventually(lambda: finished.is_set())
            wire.reset()

    finished = threading.Event()
    with Peer(script, tls if secure else None) as peer:
        target = hook(peer.url())
        for _ in range(3):
            assert sender.attempt(target, DELIVERY, EVENT).delivered
            finished.set()
            peer.wait_for_scripts()
    assert [request.connection for request in peer.requests] == [1, 2, 3]


def test_a_connection_that_says_more_than_it_should_is_not_used_again(sender: Transport) -> None:
    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(message())
        assert answered.wait(10)
        wire.send(message(500))
        said_more.set()
        wire.stall()

    answered, said_more = threading.Event(), threading.Event()
    with Peer(script) as peer:
        target = hook(peer.url())
        for _ in range(2):
            assert sender.attempt(target, DELIVERY, EVENT).delivered
            answered.set()
            assert said_more.wait(10)
    assert [request.connection for request in peer.requests] == [1, 2]


@pytest.mark.parametrize(
    "data",
    [
        message(headers=[("Connection", "close")]),
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_connection_that_the_peer_will_close_is_not_kept(sender: Transport, data: bytes) -> None:
    with Peer(raw(data)) as peer:
        assert attempt(sender, peer.url()).delivered
        eventually(lambda: sender_has_closed(peer.wires[0]))


def sender_has_closed(wire: Wire) -> bool:
    try:
        return wire._sock.recv(1, socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:  # closed here too
        return True


def at_the_same_time(work: Callable[..., Attempt], arguments: list) -> list[Attempt]:
    outcomes: list[Attempt] = []
    threads = [
        threading.Thread(target=lambda value=value: outcomes.append(work(value)))
        for value in arguments
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == len(arguments)
    return outcomes


def answer_together(count: int) -> Callable[[Wire], None]:
    """Answer only when ``count`` requests have come in: they must be on as many connections."""
    everybody = threading.Barrier(count)

    def script(wire: Wire) -> None:
        while wire.read_request() is not None:
            everybody.wait(10)
            wire.send(message())

    return script


def test_attempts_at_the_same_time_never_share_a_connection(sender: Transport) -> None:
    with Peer(answer_together(8)) as peer:
        target = hook(peer.url())
        for _ in range(3):
            outcomes = at_the_same_time(
                lambda _: sender.attempt(target, DELIVERY, EVENT), [None] * 8
            )
            assert all(outcome.delivered for outcome in outcomes)
        assert len(peer.wires) == 8
        for start in (0, 8, 16):
            assert len({request.connection for request in peer.requests[start : start + 8]}) == 8


def test_the_number_of_kept_connections_is_bounded(
    sender: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_KEPT < 256  # the soft limit of open files on macOS
    monkeypatch.setattr(connection, "MAX_KEPT", 3)
    with Peer(answer_together(8)) as peer:
        target = hook(peer.url())
        at_the_same_time(lambda _: sender.attempt(target, DELIVERY, EVENT), [None] * 8)
        eventually(lambda: sum(not sender_has_closed(wire) for wire in peer.wires) == 3)


def test_close_closes_all_of_them(sender: Transport) -> None:
    with ExitStack() as stack:
        peers = [stack.enter_context(Peer(answer())) for _ in range(5)]
        for peer in peers:
            assert attempt(sender, peer.url(), id=str(peer.port)).delivered
        sender.close()
        for peer in peers:
            peer.wait_for_scripts()


def test_close_during_an_attempt_leaves_nothing_open(sender: Transport) -> None:
    def script(wire: Wire) -> None:
        wire.read_request()
        sender.close()
        wire.send(message())
        wire.read_request()

    with Peer(script) as peer:
        assert attempt(sender, peer.url()).delivered
        peer.wait_for_scripts()


def test_hooks_do_not_share_connections(sender: Transport) -> None:
    with Peer(answer()) as peer:
        hooks = [hook(peer.url(), headers={"Authorization": name}) for name in "ab"]
        for target in hooks * 2:
            assert sender.attempt(target, DELIVERY, EVENT).delivered
        seen = {(r.connection, r.header("Authorization")) for r in peer.requests}
        assert len({connection for connection, _ in seen}) == len(seen)


def open_files() -> int:
    return len(os.listdir("/dev/fd"))


def test_failing_attempts_leave_no_file_open(
    sender: Transport, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Peer(answer()) as nobody:
        pass
    untrusted = server_context(trustme.CA().issue_cert(*NAMES))
    quick = [
        Peer(reset_at_once),
        Peer(raw(b"", then="close")),
        Peer(raw(b"HTTP/1.1 200 OK\r\nA", then="reset")),
        Peer(raw(message(length=5), then="close")),
        Peer(raw(b"garbage\r\n", then="close")),
        Peer(raw(message(500, b"no", [("Connection", "close")]), then="close")),
        Peer(raw(message(500, b"no"), then="close")),
        Peer(raw(b"HTTP/1.1 500 No\r\n\r\n" + bytes(MAX_BODY * 2), then="close")),
        Peer(flood(b"HTTP/1.1 200 OK\r\nX: ", b"y")),
        Peer(answer(), untrusted),
        Peer(reset_at_once, tls),
        Peer(early(b"not TLS")),
    ]
    stalled = [Peer(never_answer), Peer(raw(message(length=5))), Peer(never_answer, tls)]
    refusing_proxy = Peer(answer(407))
    peers = [*quick, *stalled, refusing_proxy]
    before = 0
    with ExitStack() as stack:
        for peer in peers:
            stack.enter_context(peer)
        monkeypatch.setenv("HTTPS_PROXY", refusing_proxy.url())
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        targets = [hook(peer.url(), id=str(peer.port)) for peer in quick]
        targets += [hook(peer.url(), 30, id=str(peer.port)) for peer in stalled]
        targets += [
            hook("https://receiver.example/", id="proxy"),
            hook(nobody.url(), id="nobody"),
            hook(quick[-2].url(scheme="http"), id="TLS wanted"),
            hook(quick[-1].url(scheme="https"), id="no TLS"),
        ]
        for number, target in enumerate(itertools.islice(itertools.cycle(targets), 500)):
            if number == 2 * len(targets):
                before = settled_files(sender, peers)
            outcome = sender.attempt(target, DELIVERY, EVENT)
            assert not outcome.delivered, target
        assert settled_files(sender, peers) <= before


def settled_files(sender: Transport, peers: list[Peer]) -> int:
    """Count open files when the attempts so far are over on both sides."""
    for peer in peers:
        peer.wait_for_scripts()
    return open_files()


def test_an_exception_from_outside_closes_the_connection(
    sender: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    class TimeLimit(BaseException):
        """As Celery raises one in the middle of a task."""

    def interrupted(*_: object) -> None:
        raise TimeLimit

    with Peer(answer()) as peer:
        monkeypatch.setattr(connection.Connection, "getresponse", interrupted)
        with pytest.raises(TimeLimit):
            attempt(sender, peer.url())
        peer.wait_for_scripts()


# The environment


def test_netrc_is_ignored(
    sender: Transport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text(
        "machine 127.0.0.1 login mallory password gotcha\ndefault login m password g\n"
    )
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with Peer(answer()) as peer:
        assert attempt(sender, peer.url()).delivered
        assert attempt(sender, peer.url(), headers={"Authorization": "Bearer mine"}).delivered
    assert [request.all("Authorization") for request in peer.requests] == [[], ["Bearer mine"]]


def test_cookies_are_not_kept(sender: Transport) -> None:
    with Peer(answer(headers=[("Set-Cookie", "session=1; Path=/")])) as peer:
        target = hook(peer.url())
        for _ in range(2):
            assert sender.attempt(target, DELIVERY, EVENT).delivered
    assert [request.all("Cookie") for request in peer.requests] == [[], []]


CREDENTIALS = "Basic " + base64.b64encode(b"user:p@ss").decode()


def test_a_proxy_for_http(sender: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    with Peer(answer()) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://user:p%40ss@127.0.0.1:{proxy.port}")
        target = hook("http://receiver.example:81/a?b#c", headers={"X-Mine": "1"})
        for _ in range(2):
            assert sender.attempt(target, DELIVERY, EVENT).delivered
        assert len(proxy.wires) == 1
    for request in proxy.requests:
        assert request.target == "http://receiver.example:81/a?b"
        assert request.header("Proxy-Authorization") == CREDENTIALS
        assert request.header("Host") == "receiver.example:81"
        assert request.header("X-Mine") == "1"


def test_a_proxy_for_https(
    sender: Transport, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.0 299 Yes\r\nContent-Length: 7\r\n\r\n"
    with Peer(tunnel(answer(), tls, opened)) as proxy:
        monkeypatch.setenv("https_proxy", f"user:p%40ss@127.0.0.1:{proxy.port}")
        secret = {"Authorization": "Bearer secret"}
        assert attempt(sender, "https://receiver.example/a?b", headers=secret).problem == ""
    asked, sent = proxy.requests
    assert asked.target == "receiver.example:443"
    assert asked.header("Proxy-Authorization") == CREDENTIALS
    assert asked.all("Authorization") == []
    assert sent.target == "/a?b"
    assert sent.all("Proxy-Authorization") == []
    assert sent.header("Authorization") == "Bearer secret"


def test_hosts_without_proxy(sender: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    with Peer(answer()) as peer, Peer(answer()) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url())
        monkeypatch.setenv("NO_PROXY", "other.example,127.0.0.0/8")
        assert attempt(sender, peer.url()).delivered
        assert attempt(sender, peer.url(host="localhost")).delivered
    assert len(peer.requests) == 1
    assert len(proxy.requests) == 1
    assert peer.requests[0].all("Proxy-Authorization") == []


def test_the_environment_is_read_once_for_each_hook(
    sender: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Peer(answer()) as peer, Peer(answer()) as proxy:
        target = hook(peer.url())
        assert sender.attempt(target, DELIVERY, EVENT).delivered
        monkeypatch.setenv("HTTP_PROXY", proxy.url())
        assert sender.attempt(target, DELIVERY, EVENT).delivered
    assert proxy.wires == []


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (answer(407, b"secret page"), "HTTP 407"),
        (answer(502), "HTTP 502"),
        (raw(b"", then="close"), "closed the connection"),
        (raw(b"HTTP/1.1 200 OK\r\nA", then="close"), "closed the connection"),
        (raw(b"garbage\r\n"), "valid HTTP"),
        (flood(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"), "valid HTTP"),
        (tunnel(early(b"not TLS", then="close")), "TLS with receiver.example:443 (through the"),
    ],
    ids=["407", "502", "closes", "closes in a header", "garbage", "flood", "no TLS"],
)
def test_a_tunnel_that_does_not_open(
    sender: Transport,
    monkeypatch: pytest.MonkeyPatch,
    script: Callable[[Wire], None],
    expected: str,
) -> None:
    with Peer(script) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:hunter2@127.0.0.1:{proxy.port}")
        outcome = attempt(sender, "https://receiver.example/secret")
        proxy.wait_for_scripts()
    assert outcome.status is None
    assert expected in outcome.problem
    assert f"the proxy 127.0.0.1:{proxy.port}" in outcome.problem
    assert "secret" not in outcome.problem
    assert "hunter2" not in outcome.problem


def test_a_proxy_that_is_down(sender: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    with Peer(answer()) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url())
    for url in ("http://receiver.example/", "https://receiver.example/"):
        outcome = attempt(sender, url)
        assert f"the proxy 127.0.0.1:{proxy.port} refused the connection" in outcome.problem


@pytest.mark.parametrize(
    "proxy",
    [
        "socks5://user:hunter2@127.0.0.1:1080",
        "https://user:hunter2@127.0.0.1:3128",
        "http://user:hunter2#@127.0.0.1",
        "http://user:hunter2@127.0.0.1:port",
        "http://user:hunter2@[127.0.0.1",
        "http://user:hunter2@two words",
        "http://",
    ],
)
def test_a_proxy_that_cannot_be_used(
    sender: Transport, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    outcome = attempt(sender, "http://receiver.example/secret")
    assert outcome.status is None
    assert "proxy" in outcome.problem
    assert "hunter" not in outcome.problem
    assert "secret" not in outcome.problem


def test_a_ca_directory(
    sender: Transport,
    authority: trustme.CA,
    tls: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    pem = authority.cert_pem.bytes()
    (tmp_path / f"{subject_hash(pem)}.0").write_bytes(pem)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
    with Peer(answer(), tls) as peer:
        assert attempt(sender, peer.url()).problem == ""


def subject_hash(pem: bytes) -> str:
    """Return the name that OpenSSL looks a certificate up by in a directory."""
    parts = [
        x509.RelativeDistinguishedName(
            [
                x509.NameAttribute(
                    part.oid,
                    " ".join(str(part.value).lower().split()),
                    x509.name._ASN1Type.UTF8String,
                )
            ]
        )
        for part in x509.load_pem_x509_certificate(pem).subject
    ]
    encoded = b"".join(x509.Name([part]).public_bytes()[2:] for part in parts)
    return f"{int.from_bytes(hashlib.sha1(encoded).digest()[:4], 'little'):08x}"


@pytest.mark.parametrize("name", ["missing.pem", "empty.pem"])
def test_a_ca_bundle_that_cannot_be_read(
    sender: Transport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    (tmp_path / "empty.pem").touch()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / name))
    outcome = attempt(sender, "https://127.0.0.1:9/secret")
    assert outcome.status is None
    assert "REQUESTS_CA_BUNDLE" in outcome.problem
    assert name in outcome.problem
    assert "secret" not in outcome.problem
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with Peer(answer()) as peer:  # without TLS it does not matter
        assert attempt(sender, peer.url()).delivered


def test_an_untrusted_certificate_is_refused(sender: Transport) -> None:
    with Peer(answer(), server_context(trustme.CA().issue_cert(*NAMES))) as peer:
        outcome = attempt(sender, peer.url("/secret"))
    assert outcome.status is None
    assert f"certificate of 127.0.0.1:{peer.port} was not accepted" in outcome.problem
    assert "REQUESTS_CA_BUNDLE" in outcome.problem
    assert peer.requests == []


def test_a_certificate_for_another_host_is_refused(
    sender: Transport, authority: trustme.CA
) -> None:
    with Peer(answer(), server_context(authority.issue_cert("other.example"))) as peer:
        for host in ("127.0.0.1", "localhost"):
            outcome = attempt(sender, peer.url(host=host))
            assert outcome.status is None
            assert "mismatch" in outcome.problem
            assert "the hook's url" in outcome.problem
            assert "REQUESTS_CA_BUNDLE" not in outcome.problem
    assert peer.requests == []


def test_an_expired_certificate_is_refused(sender: Transport, authority: trustme.CA) -> None:
    yesterday = datetime.now(timezone.utc) - timedelta(days=1)
    expired = authority.issue_cert(*NAMES, not_after=yesterday)
    with Peer(answer(), server_context(expired)) as peer:
        outcome = attempt(sender, peer.url())
    assert "expired" in outcome.problem
    assert "REQUESTS_CA_BUNDLE" not in outcome.problem


def test_a_certificate_behind_a_proxy_is_the_receivers(
    sender: Transport, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = server_context(authority.issue_cert("127.0.0.1"))
    with Peer(tunnel(answer(), other)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url(scheme="http"))
        outcome = attempt(sender, "https://receiver.example/")
    assert "certificate of receiver.example:443 (through the proxy" in outcome.problem


def test_a_host_name_with_a_dot_at_its_end(
    sender: Transport, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Peer(tunnel(answer(), tls)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url(scheme="http"))
        assert attempt(sender, "https://receiver.example./").problem == ""


def test_a_receiver_that_does_not_speak_tls(sender: Transport) -> None:
    with Peer(early(b"HTTP/1.1 400 Bad Request\r\n\r\n", then="close")) as peer:
        outcome = attempt(sender, peer.url(scheme="https"))
    assert outcome.status is None
    assert "does it speak TLS there?" in outcome.problem


def test_a_receiver_that_speaks_tls_only(sender: Transport, tls: ssl.SSLContext) -> None:
    with Peer(answer(), tls) as peer:
        outcome = attempt(sender, peer.url(scheme="http"))
    assert outcome.status is None
    assert "HTTP" in outcome.problem or "closed the connection" in outcome.problem


def test_two_threads_that_start_at_once(tls: ssl.SSLContext) -> None:
    with Peer(answer(), tls) as peer:
        sender = Transport()
        target = hook(peer.url())
        outcomes = at_the_same_time(lambda _: sender.attempt(target, DELIVERY, EVENT), [0] * 16)
        assert all(outcome.delivered for outcome in outcomes)
        sender.close()


# What a problem may say


SECRET_PATH = '/Hooks/Pa%74h-key"ß'
SECRET_URL = SECRET_PATH + "?token=s3cr3t/+t%C3%B6ken==&Sign=A%2FB%2Bsigned"
SECRET_HEADERS = {
    "Authorization": "Basic " + base64.b64encode("bob-user:pässword/\"<&>'".encode()).decode(),
    "X-Api-Key": 'kéy with blanks\tand/slash\\"quote" <&\'',
    "Cookie": 'session=c00kie-value; other="quoted-value"',
}
SECRET_PIECES = [
    *("path-key", "pa%74h", "s3cr3t", "t%c3%b6ken", "töken", "a/b+signed", "a%2fb", "bob-user"),
    *("pässword", "ssword/", "kéy", "slash\\", "c00kie", "quoted-value", "%c3%b6"),
    SECRET_HEADERS["Authorization"].lower().split()[1][:20],
]


def latin_1(data: bytes) -> bytes:
    return data.decode("latin-1").encode()


DISGUISES: dict[str, Callable[[bytes], bytes]] = {
    "as it is": bytes,
    "read as Latin-1": latin_1,
    "JSON": lambda data: json.dumps(data.decode("latin-1")).encode(),
    "JSON, not escaped": lambda data: json.dumps(
        data.decode("latin-1"), ensure_ascii=False
    ).encode(),
    "JSON by PHP": lambda data: json.dumps(data.decode("latin-1")).replace("/", "\\/").encode(),
    "JSON in JSON": lambda data: json.dumps(json.dumps(data.decode("latin-1"))).encode(),
    "a Python literal": lambda data: repr(data).encode(),
    "quoted for URLs": lambda data: quote(data).encode(),
    "quoted for forms": lambda data: quote_plus(data).lower().encode(),
    "HTML": lambda data: html.escape(data.decode("latin-1")).encode(),
    "HTML with numbers": lambda data: data.decode("latin-1").encode("ascii", "xmlcharrefreplace"),
    "capitals": lambda data: data.upper(),
    "with line breaks": lambda data: b"\n".join(data[n : n + 9] for n in range(0, len(data), 9)),
    "with blanks squeezed": lambda data: b" ".join(data.split()),
    "the query alone": lambda data: data.split(b"?")[1].split(b" ")[0],
    "one header alone": lambda data: data.split(b"Api-Key: ")[1].split(b"\r\n")[0],
    "who it was": lambda data: (
        b"wrong password " + base64.b64decode(data.split(b"Basic ")[1].split(b"\r\n")[0])
    ),
}


@pytest.mark.parametrize("name", DISGUISES)
@pytest.mark.parametrize("content_type", ["text/plain", "application/json; charset=iso-8859-1"])
def test_no_secret_gets_into_a_problem(sender: Transport, name: str, content_type: str) -> None:
    starts = itertools.count()

    def echoed(request: bytes) -> bytes:
        lines = request.partition(b"\r\n\r\n")[0].split(b"\r\n")
        start = next(starts)  # each line once at the beginning, where it is quoted
        return DISGUISES[name](b"\r\n".join(lines[start:] + lines[:start]))

    with Peer(echo(echoed, content_type=content_type)) as peer:
        target = hook(peer.url(SECRET_URL), headers=SECRET_HEADERS)
        for _ in range(12):
            outcome = sender.attempt(target, DELIVERY, EVENT)
            assert outcome.status == 400
            for piece in SECRET_PIECES:
                assert piece not in outcome.problem.lower()


def test_a_proxys_password_is_a_secret(sender: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    with Peer(echo(lambda data: data.split(b"Proxy-")[1] + b"hunter2")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://user:hunter2@127.0.0.1:{proxy.port}")
        outcome = attempt(sender, "http://receiver.example/")
    assert base64.b64encode(b"user:hunter2").decode() not in outcome.problem
    assert "hunter2" not in outcome.problem
    assert "Authorization" in outcome.problem


def test_a_secret_that_is_cut_off_where_reading_ends(sender: Transport) -> None:
    secret = "0123456789abcdef" * 400
    body = (secret * 11).encode()
    with Peer(answer(400, body, [("Content-Type", "text/plain")])) as peer:
        outcome = attempt(sender, peer.url(), headers={"X-Key": secret})
    assert "0123" not in outcome.problem


def test_a_useful_error_is_quoted(sender: Transport) -> None:
    body = b'{"error": "unknown event PersonCreate", "path": "/secret-path"}'
    with Peer(answer(422, body, [("Content-Type", "application/problem+json")])) as peer:
        outcome = attempt(
            sender, peer.url("/secret-path"), headers={"Authorization": "Bearer key-1234"}
        )
    assert "HTTP 422" in outcome.problem
    assert '"error": "unknown event PersonCreate"' in outcome.problem
    assert "secret" not in outcome.problem


@pytest.mark.parametrize("scheme", ["Bearer", "Basic", "Token"])
def test_the_name_of_an_authentication_scheme_is_no_secret(sender: Transport, scheme: str) -> None:
    body = f"{scheme} credentials are missing".encode()
    with Peer(answer(401, body, [("Content-Type", "text/plain")])) as peer:
        outcome = attempt(sender, peer.url(), headers={"Authorization": f"{scheme} key-1234"})
    assert f"{scheme} credentials are missing" in outcome.problem


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/plain", b"a" * 10_000),
        ("text/plain", "ä".encode() * 10_000),
        ("text/plain", b"\xff" * 10_000),
        ("text/html", b"<p>\r\n\tone\x00\x1b[31m\x7f two\xc2\x85\xe2\x80\xa8\xe2\x80\xae end</p>"),
        ("text/plain; charset=no-such-thing", b"one \xe4\xf6 two"),
        ("text/plain; charset=undefined", b"one two"),
        ("text/plain; charset=idna", b"one two"),
        ("text/plain; charset=zlib", b"one two"),
        ("text/plain; charset=utf-7", b"one +AAA- two"),
        ("text/plain; charset=utf-16", "one two".encode("utf-16")),
        ("text/plain; charset=unicode_escape", b"one \\ud800 two"),
        ('text/plain; charset="\0"', b"one two"),
        ("text/plain; charset*0*=utf-8''%00; charset*99999999999999999999=x", b"one two"),
        ("text/plain; charset=" + "x" * 30_000, b"one two"),
        ("application/json; charset=shift_jis", "エラー".encode("shift_jis")),
    ],
)
def test_an_excerpt_is_one_short_printable_line(
    sender: Transport, content_type: str, body: bytes
) -> None:
    with Peer(answer(500, body, [("Content-Type", content_type)])) as peer:
        outcome = attempt(sender, peer.url())
    assert outcome.status == 500
    assert outcome.problem.isprintable()
    assert len(outcome.problem) <= len('HTTP 500 Internal Server Error; the answer says "".') + 200
    assert MAX_EXCERPT == 200


@pytest.mark.parametrize(
    "content_type",
    [
        "image/png",
        "application/octet-stream",
        "application/x-jsonlines",
        "application/zip+jsonx",
        "multipart/form-data",
        "text",
        "text/plain\x00",
        "",
    ],
)
def test_what_is_not_text_is_not_quoted(sender: Transport, content_type: str) -> None:
    with Peer(answer(500, b"PNG \x00\x01 words", [("Content-Type", content_type)])) as peer:
        outcome = attempt(sender, peer.url())
    assert outcome.problem == "HTTP 500 Internal Server Error."


def test_a_body_without_a_type_is_not_quoted(sender: Transport) -> None:
    with Peer(answer(500, b"words")) as peer:
        assert attempt(sender, peer.url()).problem == "HTTP 500 Internal Server Error."


def test_the_reason_phrase_is_not_the_peers(sender: Transport) -> None:
    with Peer(raw(b"HTTP/1.1 500 \x1b[31mfake\r\nContent-Length: 0\r\n\r\n")) as peer:
        assert attempt(sender, peer.url()).problem == "HTTP 500 Internal Server Error."


@pytest.mark.parametrize("seconds", [0.1])
def test_the_duration_is_told(sender: Transport, seconds: float) -> None:
    def script(wire: Wire) -> None:
        wire.read_request()
        wire.peer.closing.wait(seconds)
        wire.send(message())

    with Peer(script) as peer:
        assert 100 <= attempt(sender, peer.url()).milliseconds < 10_000
