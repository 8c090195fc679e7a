"""A secret of the webhooks file is in the request, and nowhere else."""

import base64
import json
import re
import socket
import threading
from uuid import uuid4

import pytest
from brokers import ON_REDIS, Relay, ask, outcome, settings_for
from collected import Collected
from recorder import Request

from webhooks_celery import emit
from webhooks_celery.config import read
from webhooks_celery.errors import ConfigError, WebhooksError


@pytest.fixture
def marker() -> str:
    """One of its own: other programs' traffic may be in a broker's dump too."""
    return f"s3cr3t-marker-{uuid4()}"


def echo(request: Request, status: int = 500) -> bytes:
    """A receiver's careless answer: all that it was sent."""
    return answer(status, "text/plain", request.head + b"\r\n\r\n" + request.body)


def echo_json(request: Request) -> bytes:
    body = {"error": "bad signature", "headers": request.headers, "path": request.path}
    return answer(500, "application/json", json.dumps(body).encode())


def answer(status: int, kind: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def decoded(text: str) -> str:
    """``text`` and what is in it as base64, in which Redis messages carry their bodies."""
    found = re.findall(r"[A-Za-z0-9+/]{20,}={0,2}", text)
    return text + "".join(
        base64.b64decode(piece).decode("latin-1") for piece in found if len(piece) % 4 == 0
    )


class Events:
    """What workers tell monitors."""

    def __init__(self, app) -> None:
        self._seen: Collected[dict] = Collected()
        self._receiver = app.events.Receiver(
            app.connection_for_read(), handlers={"*": self._seen.add}
        )
        self._thread = threading.Thread(target=self._receiver.capture, daemon=True)
        self._thread.start()

    def wait_for(self, kind: str, node: str) -> None:
        assert self._seen.wait_until(
            lambda seen: any((each["type"], each["hostname"]) == (kind, node) for each in seen)
        )

    def stop(self) -> str:
        self._receiver.should_stop = True
        self._thread.join()
        return repr(self._seen.items)


class Monitor:
    """What a Redis server is told, by whomever."""

    def __init__(self, url: str) -> None:
        from redis import Redis

        self._client = Redis.from_url(url)
        self._last = str(uuid4())
        self._commands: list[str] = []
        self._monitor = self._client.monitor().__enter__()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def stop(self) -> str:
        self._client.echo(self._last)
        self._thread.join()
        return "\n".join(self._commands)

    def _listen(self) -> None:
        for told in self._monitor.listen():
            self._commands.append(told["command"])
            if self._last in told["command"]:
                break
        self._monitor.__exit__()


def test_the_marker_is_in_the_request_and_nowhere_else(
    marker, receiver, settings, webhooks_file, make_app, own_worker, start, monkeypatch
):
    released = threading.Event()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}/refused"
        hooks = {
            "held": receiver.answer("/held", lambda request: released.wait() and echo(request)),
            "text": receiver.answer("/text", echo),
            "json": receiver.answer("/json", echo_json),
            "later": receiver.answer("/later", echo),
            "silent": receiver.answer("/silent", receiver.never),
            "fine": receiver.answer("/fine", lambda request: echo(request, status=200)),
            "refused": closed,
        }
    file = webhooks_file(
        *(
            {
                "id": name,
                "events": ["E"],
                "url": f"{url}?key=${{TOKEN}}&id=7",
                "headers": {"Authorization": f"Bearer {marker}", "X-Webhook-Secret": "${TOKEN}"},
                "timeoutMs": 300 if name == "silent" else 60_000,
                "retries": 2,
                "backoffMs": 600_000 if name == "later" else 1,
            }
            for name, url in hooks.items()
        )
    )
    monkeypatch.setenv("TOKEN", marker)
    relay = Relay(settings["broker_url"])
    monitor = Monitor(settings["broker_url"]) if ON_REDIS else None
    node = f"{uuid4()}@test"
    env = {"CELERY_BROKER_URL": relay.url, "TOKEN": marker}
    options = ("-c", "1", "-l", "DEBUG", "-E", "-n", node)
    worker = own_worker(file, *options, **env)
    app = make_app(webhooks_config=file, **settings_for(relay.url))
    events = Events(app)
    events.wait_for("worker-heartbeat", node)

    # While one delivery is under way, others wait behind it.
    ids = dict(zip(hooks, emit("E", {"id": 1}, app=app)))
    receiver.wait_for(1, "/held")
    commands = ["webhooks", "conf", "registered", "active", "reserved", "stats"]
    inspected = [ask(app, node, command) for command in commands]
    released.set()
    outcomes = {name: outcome(app, ids[name]) for name in ids if name != "later"}
    worker.wait_for_line(f"[{ids['later']}] retry: Retry in 600")
    inspected.append(ask(app, node, "scheduled"))
    events.wait_for("task-retried", node)
    report = start("-m", "celery", "-A", "webhooks_celery", "report", TOKEN=marker)
    assert report.wait() == 0
    assert worker.stop() == 0

    for name in set(hooks) - {"refused"}:
        request = receiver.to(f"/{name}")[0]
        assert request.path == f"/{name}?key={marker}&id=7"
        assert request.headers["Authorization"] == f"Bearer {marker}"
        assert request.headers["X-Webhook-Secret"] == marker
    assert {name for name, result in outcomes.items() if isinstance(result, dict)} == {"fine"}

    errors = [result for result in outcomes.values() if isinstance(result, WebhooksError)]
    seen = {
        "what went to the broker and came from it": decoded(
            b"\n".join(relay.traffic).decode("latin-1")
        ),
        "the worker's log": worker.output,
        "events": events.stop(),
        "celery inspect": repr(inspected),
        "celery report": report.output,
        "stored results": "\n".join(
            str(app.backend.get(app.backend.get_key_for_task(each))) for each in ids.values()
        ),
        "exceptions": "\n".join(f"{each} {each!r} {vars(each)}" for each in errors),
    }
    if monitor:
        seen["what Redis was told"] = decoded(monitor.stop())
    relay.cut()

    assert [source for source, text in seen.items() if marker in text] == []
    # Each of them is the right place to look: it knows of these hooks.
    assert [source for source, text in seen.items() if "silent" not in text] == ["celery report"]
    assert "webhooks_queue" in seen["celery report"]
    assert "[redacted]" in seen["exceptions"]


def test_faults_in_the_file_do_not_quote_it(marker, webhooks_file):
    faulty = {
        "events": ["E"],
        "url": "ftp://user:${TOKEN}@host/?key=${TOKEN}",
        "headers": {"A": "${TOKEN}\n", "B": f"{marker} \u20ac", "C": ["${TOKEN}"]},
        "timeoutMs": marker,
        "method": "${TOKEN}",
    }
    with pytest.raises(ConfigError) as raised:
        read(webhooks_file(faulty, faulty | {"url": f"http://{marker} /"}), {"TOKEN": marker})
    error = raised.value
    assert len(error.faults) >= 10
    assert marker not in f"{error} {error!r} {error.faults}"


def test_hooks_do_not_show_their_secrets(marker, webhooks_file):
    url = "https://receiver.test/?key=${TOKEN}"
    hook = {"id": "h", "events": ["E"], "url": url, "headers": {"X-Secret": marker}}
    config = read(webhooks_file(hook), {"TOKEN": marker})
    assert config.hooks.get("h").url.endswith(marker)
    assert marker not in f"{config} {list(config.hooks)}"
