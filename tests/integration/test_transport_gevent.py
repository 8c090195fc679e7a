"""The deadline under gevent, whose sockets wait in another way than the standard library's.

The client is a process of its own, patched before anything else is imported; the peers are threads
of this one.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import trustme
from hostile import STALLS, Peer, Wire, answer, message, never_answer, raw, stalling_peer, tunnel

pytestmark = pytest.mark.timeout(90)

CLIENT = """
from gevent import monkey
monkey.patch_all()
import json, os, socket, sys, time
import gevent
from webhooks_celery.model import Event, Hook
from webhooks_celery.transport import Transport

plan = json.load(sys.stdin)

def ask_dead_name_server(*args, **options):
    gevent.get_hub().threadpool.apply(os.read, (os.pipe()[0], 1))

if plan["dead name server"]:
    socket.getaddrinfo = ask_dead_name_server
sender = Transport()
hooks = {}

def attempt(url, timeout_ms, payload):
    event = Event(name="E", timestamp="T", payload='"' + "x" * payload + '"')
    hook = hooks.setdefault(url, Hook(id=url, position=1, events=("*",), url=url,
                                      timeout_ms=timeout_ms))
    outcome = sender.attempt(hook, "d", event)
    return [outcome.status, outcome.problem]

outcomes = []
started = time.monotonic()
for step in plan["steps"]:  # one after the other; the attempts of one step together
    greenlets = [gevent.spawn(attempt, *arguments) for arguments in step]
    gevent.joinall(greenlets, timeout=10)
    outcomes.append([g.get() if g.ready() else [0, "still waiting"] for g in greenlets])
seconds = time.monotonic() - started
json.dump({"outcomes": outcomes, "seconds": seconds}, sys.stdout)
sys.stdout.flush()
os._exit(0)  # whoever still hangs must not hold the process
"""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "receiver.example").configure_cert(context)
    return context


class Client:
    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment

    def run(
        self, *steps: list[tuple[str, int, int]], dead_name_server: bool = False, **more: str
    ) -> dict[str, Any]:
        """Make attempts, each a URL, a timeout and the payload's size; return what came of them."""
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", CLIENT],
            input=json.dumps({"steps": steps, "dead name server": dead_name_server}),
            capture_output=True,
            text=True,
            env=self._environment | more,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def client(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Client:
    ca_file = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().endswith(("_PROXY", "_CA_BUNDLE"))
    }
    return Client(environment | {"REQUESTS_CA_BUNDLE": str(ca_file)})


@pytest.fixture(scope="module")
def stalled(client: Client, tls: ssl.SSLContext) -> Iterator[dict[str, tuple[int, str]]]:
    """What came of one attempt against each stalling peer, all of them at the same time."""
    with ExitStack() as stack:
        attempts = []
        for stall in STALLS.values():
            peer = stack.enter_context(stalling_peer(stall, tls))
            attempts.append((peer.url(scheme="https" if stall.tls else "http"), 500, stall.payload))
        outcomes = client.run(attempts)["outcomes"][0]
        yield dict(zip(STALLS, outcomes))


@pytest.mark.parametrize("name", STALLS)
def test_the_deadline_covers_a_peer_that(stalled: dict[str, tuple[int, str]], name: str) -> None:
    status, problem = stalled[name]
    assert status is None
    assert "within 500 ms" in problem
    assert STALLS[name].phase in problem


def test_the_deadline_covers_a_proxy(client: Client, tls: ssl.SSLContext) -> None:
    url = "https://receiver.example/"
    with Peer(raw(b"HTTP/1.1 200 OK\r\nX-Half: ")) as proxy:
        [[[status, problem]]] = client.run([(url, 300, 2)], HTTPS_PROXY=proxy.url())["outcomes"]
    assert status is None
    assert "within 300 ms" in problem
    assert "for a tunnel" in problem
    with Peer(tunnel(answer(204), tls)) as proxy:
        outcomes = client.run([(url, 5000, 2)], HTTPS_PROXY=proxy.url(scheme="http"))["outcomes"]
    assert outcomes == [[[204, ""]]]


def test_the_deadline_covers_the_look_up_of_a_name(client: Client) -> None:
    """Also when the look-ups have used up the threads that gevent has for them."""
    with Peer(answer()) as peer:
        names = [(f"http://n{number}.example/", 300, 2) for number in range(20)]
        done = client.run(names, [*names, (peer.url(), 2000, 2)], dead_name_server=True)
    for outcomes in done["outcomes"]:
        for status, problem in outcomes[:20]:
            assert status is None
            assert "within 300 ms" in problem
            assert "looking up" in problem
    assert done["outcomes"][1][20] == [200, ""]


def test_stalled_peers_do_not_wait_for_each_other(client: Client) -> None:
    with Peer(never_answer) as peer:
        done = client.run([(peer.url(f"/{number}"), 1000, 2) for number in range(50)])
    assert all("waiting for the answer" in problem for _, problem in done["outcomes"][0])
    assert done["seconds"] < 10  # one after another they would take 50 s


def test_connections_are_kept_and_used_again(client: Client, tls: ssl.SSLContext) -> None:
    with Peer(answer()) as plain, Peer(answer(), tls) as secure:
        attempts = [(plain.url(), 5000, 2), (secure.url(), 5000, 2)]
        done = client.run(attempts, attempts, attempts)
        assert done["outcomes"] == [[[200, ""]] * 2] * 3
        assert len(plain.wires) == 1
        assert len(secure.wires) == 1


def test_a_connection_that_the_peer_closed_is_not_used_again(
    client: Client, tls: ssl.SSLContext
) -> None:
    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(message())

    with Peer(script) as plain, Peer(script, tls) as secure, Peer(never_answer) as slow:
        attempts = [(plain.url(), 5000, 2), (secure.url(), 5000, 2)]
        # In between something that takes long enough for the end of the connections to arrive.
        done = client.run(attempts, [(slow.url(), 300, 2)], attempts)
    assert done["outcomes"][0] == done["outcomes"][2] == [[200, ""]] * 2
    assert [request.connection for request in plain.requests] == [1, 2]


def test_greenlets_never_share_a_connection(client: Client) -> None:
    with Peer(answer()) as peer:
        done = client.run(*[[(peer.url(), 5000, 2)] * 20] * 3)
    assert done["outcomes"] == [[[200, ""]] * 20] * 3
    assert len(peer.requests) == 60
    assert len(peer.wires) <= 20


def test_a_large_request_goes_out_whole(client: Client, tls: ssl.SSLContext) -> None:
    with Peer(answer()) as plain, Peer(answer(), tls) as secure:
        size = 4 * 2**20
        done = client.run([(peer.url(), 20_000, size) for peer in (plain, secure)])
    assert done["outcomes"] == [[[200, ""]] * 2]
    assert len(plain.requests[0].body) == len(secure.requests[0].body) > size


def test_nobody_listens(client: Client) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        [[[status, problem]]] = client.run([(f"http://127.0.0.1:{port}/", 5000, 2)])["outcomes"]
    assert status is None
    assert "refused the connection" in problem
