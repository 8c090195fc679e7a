"""``celery webhooks demo``: the whole way of an event, with real parts, in a few seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from celery import Celery

from .config import config_of
from .embedded import embedded_broker
from .emitter import emit
from .errors import WebhooksError
from .installer import install
from .receiver import Received, Receiver
from .retry import duration, wait_ms

#: Bound on everything together, in seconds.
TIME_LIMIT = 25

#: By hook: what its receiver answers, attempt by attempt.
ANSWERS = {
    "greeter": [204],
    "sleepy": [503, 503, 204],
    "broken": [500, 500, 500],
}

HOOKS: list[dict[str, Any]] = [
    {"id": "greeter", "events": ["PersonCreate"]},
    {"id": "sleepy", "events": ["Asset*"], "retries": 5, "backoffMs": 500},
    {"id": "broken", "events": ["AlbumDelete"], "retries": 3, "backoffMs": 500},
]

EVENTS: list[tuple[str, object]] = [
    ("PersonCreate", {"id": 1, "name": "Ada"}),
    ("AssetCreate", {"id": 7, "file": "sunrise.jpg"}),
    ("AlbumDelete", {"id": 3}),
    ("TagCreate", {"id": 9}),
]


class DemoFailed(WebhooksError):
    """Something in the demo did not go as it should; says what."""


def run_demo(say: Callable[[str], None]) -> bool:
    """Run the demo, telling ``say`` line by line; return whether every outcome was as expected.

    Starts a broker, a receiver and a worker process of its own and ends them all.

    Raises:
        WebhooksError: a part could not be started or did not finish in time.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="webhooks-demo-")))
        broker = stack.enter_context(embedded_broker())
        say(f"broker     an embedded Valkey server, {broker}")
        receiver = stack.enter_context(Receiver(_Script()))
        say(f"receiver   a web server, {receiver.url}")
        config = folder / "webhooks.json"
        hooks = [{**hook, "url": f"{receiver.url}/{hook['id']}"} for hook in HOOKS]
        config.write_text(json.dumps({"webhooks": hooks}), encoding="utf-8")
        say('hooks      in a file like this: {"webhooks": [')
        for hook in hooks:
            say(f"             {json.dumps(hook)}{',' if hook is not hooks[-1] else ']}'}")
        app = _producer(broker, config)
        worker = stack.enter_context(_worker(folder, broker, config))
        say(f"worker     celery -A webhooks_celery worker, process {worker.pid}")
        say("")
        return _Story(app, worker, say, folder / "worker.log").tell()


class _Script:
    """Answers each hook's requests as ``ANSWERS`` says."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def __call__(self, request: Received) -> int:
        hook = request.path.strip("/")
        self._seen[hook] += 1
        return ANSWERS[hook][self._seen[hook] - 1]


def _producer(broker: str, config: Path) -> Celery:
    """Return an app as an application would have it: one call installs webhooks."""
    app = Celery("demo", set_as_current=False)
    # Not broker_url, which CELERY_BROKER_URL would override.
    app.conf.update(broker_read_url=broker, broker_write_url=broker, webhooks_config=str(config))
    install(app)
    return app


@contextmanager
def _worker(folder: Path, broker: str, config: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a real worker for the length of the block."""
    own = {
        "CELERY_BROKER_URL": broker,
        "IMMICH_WEBHOOKS_CONFIG": str(config),
        "NO_PROXY": "127.0.0.1",
        "PYTHONWARNINGS": "ignore",
    }
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("CELERY_")
    }
    command = "worker --pool threads --concurrency 4 --task-events --without-mingle"
    with (folder / "worker.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "celery", "-A", "webhooks_celery", *command.split()],
            cwd=folder,  # no celeryconfig.py of somebody else's
            env=inherited | own,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C comes to us, and we end it
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class _Story:
    """Emits the events once the worker is there and follows what becomes of them."""

    def __init__(
        self,
        app: Celery,
        worker: subprocess.Popen[bytes],
        say: Callable[[str], None],
        log: Path,
    ) -> None:
        self._app, self._worker, self._say, self._log = app, worker, say, log
        self._started = monotonic()
        self._hook_of: dict[str, str] = {}
        self._attempts: Counter[str] = Counter()
        self._outcome: dict[str, str] = {}

    def tell(self) -> bool:
        with self._app.connection_for_read() as connection:
            events = self._app.events.Receiver(
                connection,
                handlers={
                    "worker-online": self._emit,
                    "task-retried": self._retried,
                    "task-succeeded": self._delivered,
                    "task-failed": self._given_up,
                },
            )
            events.on_iteration = self._check
            for _ in events.itercapture(wakeup=False):
                if len(self._outcome) == len(ANSWERS):
                    break
        expected = {
            hook: "delivered" if answers[-1] < 300 else "given up"
            for hook, answers in ANSWERS.items()
        }
        attempts = {hook: len(answers) for hook, answers in ANSWERS.items()}
        good = self._outcome == expected and dict(self._attempts) == attempts
        self._say("")
        total = sum(attempts.values())
        delivered = sum(outcome == "delivered" for outcome in self._outcome.values())
        self._say(
            f"{len(EVENTS)} events, {len(self._outcome)} deliveries, {total} attempts: {delivered} "
            f"delivered, {len(self._outcome) - delivered} given up."
        )
        self._say("Everything went as it should." if good else "NOT as expected; see above.")
        return good

    def _check(self) -> None:
        """Called at least once a second."""
        if self._worker.poll() is not None:
            raise DemoFailed(f"The worker process ended. It said:\n{self._worker_log()}")
        if monotonic() - self._started > TIME_LIMIT:
            raise DemoFailed(
                f"Not done after {TIME_LIMIT} s. The worker said:\n{self._worker_log()}"
            )

    def _worker_log(self) -> str:
        return self._log.read_text("utf-8", "replace")[-4000:]

    def _tell(self, text: str) -> None:
        self._say(f"{monotonic() - self._started:5.1f} s  {text}")

    def _emit(self, _: object) -> None:
        for name, payload in EVENTS:
            ids = emit(name, payload, app=self._app)
            wanted_by = [hook.id for hook in config_of(self._app).hooks.matching(name)]
            self._hook_of.update(zip(ids, wanted_by))
            goes_to = (
                f"for hook {', '.join(wanted_by)}" if ids else "no hook wants it: nothing is queued"
            )
            self._tell(f'emit("{name}", {json.dumps(payload)})  {goes_to}')

    def _attempted(self, event: dict[str, Any], then: Callable[[str, int], str]) -> None:
        hook = self._hook_of.get(event["uuid"])
        if hook is None:
            return
        self._attempts[hook] += 1
        number = self._attempts[hook]
        status = ANSWERS[hook][number - 1]
        self._tell(
            f"{hook:<8} attempt {number}: the receiver answers {status}, {then(hook, number)}"
        )

    def _retried(self, event: dict[str, Any]) -> None:
        def then(hook: str, number: int) -> str:
            definition = config_of(self._app).hooks.get(hook)
            assert definition is not None
            return f"next attempt in {duration(wait_ms(definition, number))}"

        self._attempted(event, then)

    def _delivered(self, event: dict[str, Any]) -> None:
        self._end(event, "delivered")

    def _given_up(self, event: dict[str, Any]) -> None:
        self._end(event, "given up")

    def _end(self, event: dict[str, Any], outcome: str) -> None:
        def then(hook: str, _: int) -> str:
            self._outcome[hook] = outcome
            return outcome

        self._attempted(event, then)
