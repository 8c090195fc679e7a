"""Workers as real processes: started, measured, told to pause, stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from celery import Celery

from . import machine
from .apps import EVENT, payload
from .brokers import QUEUE, Broker
from .contenders import SETTINGS, Contender
from .machine import Failed, environment, in_child, until
from .receivers import Receiver

BOOT_SECONDS = 60
STOP_SECONDS = 60
#: How long a worker answers that it consumes no more, and has yet to do so, by pool; in seconds.
_LAG = {"gevent": 2.5}
_HERE = Path(__file__).parent
_SETTINGS = """\
from webhooks_celery.defaults import *
"""


class Workers(Protocol):
    """The worker processes of one contender, and the way to give them work."""

    def queue(self, count: int, events: Sequence[str] = (EVENT,)) -> list[str]:
        """Queue so many deliveries, of events of these names in turn; return their ids."""

    def pause(self) -> None:
        """Take no message until ``resume``."""

    def resume(self) -> None: ...

    def cpu_seconds(self) -> float: ...

    def pss_mib(self) -> float: ...

    def logged(self) -> str:
        """Return what they wrote into their logs."""

    def kill(self) -> None:
        """End them at once, whatever they are about."""


class _Processes:
    """Processes with a log file each; ended when the block ends."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder = folder
        self.env = env
        self.running: list[subprocess.Popen[str]] = []
        self._logs: list[Path] = []

    def start(self, command: Sequence[str]) -> None:
        path = self.folder / f"worker-{len(self._logs)}.log"
        with path.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                text=True,
                start_new_session=True,
            )
        self.running.append(process)
        self._logs.append(path)

    def logged(self) -> str:
        return "".join(path.read_text(errors="replace") for path in self._logs)

    def wait_for(self, text: str, seconds: float) -> None:
        """Wait until each of them has written ``text``."""

        def written() -> bool:
            if any(process.poll() is not None for process in self.running):
                raise Failed(f"a worker ended:\n{self.logged()[-3000:]}")
            return all(text in path.read_text(errors="replace") for path in self._logs)

        try:
            until(written, f"every worker says {text!r}", seconds)
        except Failed as error:
            raise Failed(f"{error}\n{self.logged()[-3000:]}") from None

    def cpu_seconds(self) -> float:
        return machine.cpu_seconds(process.pid for process in self.running)

    def pss_mib(self) -> float:
        return machine.pss_mib(process.pid for process in self.running)

    def stop(self) -> None:
        """Let them finish; kill what has not ended in time."""
        for process in self.running:
            process.terminate()
        for process in self.running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)

    def kill(self) -> None:
        for process in self.running:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class _CeleryWorkers(_Processes):
    def __init__(self, contender: Contender, broker: Broker, folder: Path, env: Any) -> None:
        super().__init__(folder, env)
        self._contender = contender
        self._lag = max(broker.lag, _LAG.get(contender.pool, 0.0))
        self._app = Celery("control", broker=broker.url, set_as_current=False)
        self._queue = "celery" if contender.kind == "naive" else QUEUE

    def boot(self) -> None:
        for number in range(self._contender.setup.processes):
            self.start(worker_command(self._contender, number))
        self.wait_for(" ready.", BOOT_SECONDS)
        # Ready comes a moment before a worker listens to commands.
        until(lambda: len(self._ask("ping")) == len(self.running), "workers answer", BOOT_SECONDS)
        if self._contender.late_acks:
            self._check_late_acks()

    def _check_late_acks(self) -> None:
        wanted = ["acks_late", "reject_on_worker_lost"]
        expected = "Delivery [acks_late=True reject_on_worker_lost=True]"
        replies = self._ask("registered", taskinfoitems=wanted)
        late = [any(expected in task for task in tasks) for tasks in replies]
        if len(late) != len(self.running) or not all(late):
            raise Failed(f"acknowledgement is not late: {replies}")

    def _ask(self, command: str, **arguments: Any) -> list[Any]:
        """Send a command to all workers; return what each said."""
        # A connection of its own: a pooled one may be to a virtual host that is no more.
        with self._app.connection_for_write() as connection:
            replies = self._app.control.broadcast(
                command,
                arguments=arguments,
                connection=connection,
                reply=True,
                timeout=5,
                limit=len(self.running),
            )
        return [answer for reply in replies for answer in reply.values()]

    def queue(self, count: int, events: Sequence[str] = (EVENT,)) -> list[str]:
        arguments = (self._contender.module, str(count), *events)
        ids: list[str] = in_child(
            "benchmarks.apps.queue_up", *arguments, env=self.env, cwd=self.folder
        )
        return ids

    def pause(self) -> None:
        self._tell("cancel_consumer")
        threading.Event().wait(self._lag)

    def resume(self) -> None:
        self._tell("add_consumer")

    def _tell(self, command: str) -> None:
        said = self._ask(command, queue=self._queue)
        if len(said) != len(self.running) or not all("ok" in answer for answer in said):
            raise Failed(f"{command}: {said}")

    def kill(self) -> None:
        super().kill()
        self._app.close()


def worker_command(contender: Contender, number: int = 0) -> list[str]:
    """Return the command line of one Celery worker."""
    setup = contender.setup
    app = "webhooks_celery" if contender.kind == "ours" else contender.module
    command = [sys.executable, "-m", "celery", "-A", app, "worker", "-l", "INFO"]
    command += ["-n", f"{contender.kind}-{number}@localhost", "-P", contender.pool]
    if setup.concurrency is not None:
        command += ["-c", str(setup.concurrency)]
    if setup.prefetch is not None:
        command += ["--prefetch-multiplier", str(setup.prefetch)]
    return command


class _NodeWorkers(_Processes):
    def __init__(self, contender: Contender, folder: Path, env: Any) -> None:
        super().__init__(folder, env)
        self._setup = contender.setup
        self._scripts = bullmq_folder()
        self._told = 0

    def boot(self) -> None:
        for _ in range(self._setup.processes):
            self.start(["node", str(self._scripts / "worker.mjs"), str(self._setup.concurrency)])
        self.wait_for(" ready.", BOOT_SECONDS)

    def queue(self, count: int, events: Sequence[str] = (EVENT,)) -> list[str]:
        payloads = self.folder / "payloads.json"
        payloads.write_text(json.dumps([payload(number) for number in range(count)]))
        done = subprocess.run(
            ["node", str(self._scripts / "emit.mjs"), str(payloads), *events],
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Failed(f"emit.mjs: {done.stderr}")
        ids: list[str] = json.loads(done.stdout)
        return ids

    def pause(self) -> None:
        self._tell("pause")

    def resume(self) -> None:
        self._tell("resume")

    def stop(self) -> None:
        self._tell("stop", wait=False)
        for process in self.running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)

    def _tell(self, word: str, wait: bool = True) -> None:
        for process in self.running:
            assert process.stdin is not None
            process.stdin.write(f"{word}\n")
            process.stdin.flush()
        if wait:
            self.wait_for(f" {word} done.", BOOT_SECONDS)


@cache
def bullmq_folder() -> Path:
    """Return the folder with the scripts for Node and what they need, installed if need be."""
    folder = machine.cache_folder("bullmq")
    needed = (_HERE / "bullmq" / "package.json").read_bytes()
    installed = folder / "package.json"
    ready = installed.exists() and installed.read_bytes() == needed
    ready = ready and (folder / "node_modules" / "bullmq").exists()
    for path in (_HERE / "bullmq").iterdir():
        shutil.copy(path, folder)
    if not ready:
        print("installing BullMQ …", flush=True)
        done = subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            installed.unlink()
            raise Failed(f"npm install: {done.stderr}")
    return folder


def bullmq_versions() -> dict[str, str]:
    """Return the versions of BullMQ and of its Redis client."""
    found = {}
    for package in ("bullmq", "ioredis"):
        described = bullmq_folder() / "node_modules" / package / "package.json"
        found[package] = json.loads(described.read_text())["version"]
    return found


def hook(url: str, **fields: Any) -> dict[str, Any]:
    """Return a hook of the webhooks file."""
    return {"id": "receiver", "events": [EVENT], "url": url, **fields}


@contextmanager
def setting(
    broker: Broker, hooks: Iterable[dict[str, Any]], settings: str = "", **env: str
) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield a folder with webhooks file and settings, and the environment that makes use of it."""
    folder = Path(tempfile.mkdtemp(prefix="benchmarks-"))
    try:
        file = folder / "webhooks.json"
        file.write_text(json.dumps({"webhooks": list(hooks)}))
        (folder / "celeryconfig.py").write_text(_SETTINGS + settings)
        yield (
            folder,
            environment(
                folder, CELERY_BROKER_URL=broker.url, IMMICH_WEBHOOKS_CONFIG=str(file), **env
            ),
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def workers(
    contender: Contender,
    broker: Broker,
    receiver: Receiver,
    hooks: Sequence[dict[str, Any]] | None = None,
) -> Iterator[Workers]:
    """Run the workers of ``contender`` on an empty broker; they have ended after the block.

    The webhooks file has ``hooks``, or one that sends everything to ``receiver``.
    """
    broker.renew()
    env = {"BENCHMARK_URL": receiver.url}
    if contender.stock_transport:
        env["BENCHMARK_STOCK_TRANSPORT"] = "1"
    if receiver.ca is not None:
        env |= {"REQUESTS_CA_BUNDLE": str(receiver.ca), "NODE_EXTRA_CA_CERTS": str(receiver.ca)}
    settings = SETTINGS.get(contender.pool, "")
    with ExitStack() as stack:
        folder, variables = stack.enter_context(
            setting(broker, [hook(receiver.url)] if hooks is None else hooks, settings, **env)
        )
        running: _CeleryWorkers | _NodeWorkers
        if contender.kind == "bullmq":
            running = _NodeWorkers(contender, folder, variables)
        else:
            running = _CeleryWorkers(contender, broker, folder, variables)
        stack.callback(running.kill)
        running.boot()
        yield running
        running.stop()
