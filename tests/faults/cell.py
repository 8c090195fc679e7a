"""One cell of the fault suite: a fault, a pool, a broker; and whether its accounts close."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

from faults.brokers import Broker, until
from faults.receiver import Receiver
from processes import Process, environment

HERE = Path(__file__).parent
#: A second for an attempt, and retries that outlast a fault, that may not, and that do not.
HOOKS: list[dict[str, Any]] = [
    {"id": "patient", "retries": 30, "backoffMs": 200, "backoffMaxMs": 3000},
    {"id": "usual", "retries": 4, "backoffMs": 500},
    {"id": "hasty", "retries": 1},
]
CONFIG = """\
from webhooks_celery.defaults import *
webhooks_fit_margin = 3
webhooks_emit_timeout = 2
webhooks_spool_max_bytes = {spool_bytes}
"""
CONCURRENCY = {"prefork": "4", "threads": "8"}


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of it."""

    events: int
    fault_seconds: float
    close_seconds: float  #: the longest time that the accounts may take to close


SHORT = Size(events=60, fault_seconds=3, close_seconds=60)
LONG = Size(events=1000, fault_seconds=20, close_seconds=300)


@dataclass(frozen=True, kw_only=True)
class Row:
    """What came of a cell. It closes when nothing is ``lost``."""

    fault: str
    pool: str
    broker: str
    events: int
    deliveries: int  #: events times hooks
    delivered: int
    parked: int
    lost: int
    duplicates: int  #: requests for what had been answered with 200
    refused: int  #: calls of emit that raised EmitError and were repeated
    seconds: float  #: from the end of the fault until the accounts closed


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to a running cell and is over when ``happen`` returns."""

    name: str
    happen: Callable[[Cell], None]
    pools: tuple[str, ...] = ("prefork", "threads")
    spool_bytes: int = 2**30


class Cell:
    """Real processes around one broker; ``run`` does it all."""

    def __init__(self, broker: Broker, pool: str, size: Size, folder: Path) -> None:
        self.broker = broker
        self.pool = pool
        self.size = size
        self.receiver = Receiver()
        self.worker: Process
        self._folder = folder
        self._emitters: list[Process] = []
        self._stack = ExitStack()
        self._stack.callback(self.receiver.end)

    def __enter__(self) -> Cell:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, fault: Fault) -> Row:
        """Emit while the fault happens, end it, wait until the accounts close."""
        self.prepare(fault.spool_bytes)
        before, rest = self.size.events // 4, self.size.events
        self.emit(0, before).wait()
        self.wait_until_closed()
        settled = set(self.receiver.attempts)
        seen = len(self.receiver.attempts)

        emitter = self.emit(before, rest)
        self.receiver.wait_for(
            lambda: len(self.receiver.attempts) >= seen + 10, "deliveries before the fault"
        )
        fault.happen(self)
        ended = monotonic()
        for emitter in self._emitters:
            emitter.wait(self.size.close_seconds)
        try:
            self.wait_until_closed()
        finally:
            row = self._row(fault.name, monotonic() - ended)
        again = settled & set(self.receiver.attempts[seen:])
        assert not again, f"attempted again though acknowledged before the fault: {again}"
        assert self.worker.stop() == 0
        return row

    def prepare(self, spool_bytes: int = 2**30) -> None:
        """Begin with an empty broker and a worker."""
        self.broker.renew()
        self._configure(spool_bytes)
        self.start_worker()

    def emit(self, first: int, last: int) -> Process:
        """Start a process that emits these events."""
        emitter = self._process(str(HERE / "emitter.py"), str(first), str(last))
        self._emitters.append(emitter)
        return emitter

    def start_worker(self) -> None:
        self.worker = self._process(
            *("-m", "celery", "-A", "webhooks_celery", "worker", "-l", "INFO"),
            *("--without-mingle", "-P", self.pool, "-c", CONCURRENCY[self.pool]),
        )
        self.worker.wait_for_line(" ready.", timeout=60)

    def hold(self) -> None:
        """Let the fault last."""
        Event().wait(self.size.fault_seconds)

    def children(self) -> list[int]:
        """Return the process ids of the pool's children."""
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.worker.pid)],
            capture_output=True,
            text=True,
            check=True,
        )
        return [int(pid) for pid in listed.stdout.split()]

    def accepted(self) -> set[str]:
        """Return the ids that emit has returned."""
        return set(self._said("accepted"))

    def _said(self, word: str) -> Iterator[str]:
        for emitter in self._emitters:
            for line in emitter.lines:
                if line.startswith(f"{word} "):
                    yield from line.split()[1:]

    def wait_until_closed(self) -> None:
        """Wait until everything accepted is delivered or parked, and the broker holds nothing."""
        try:
            until(self._closed, "the accounts close", self.size.close_seconds, every=1)
        except AssertionError as error:
            missing = self.accepted() - self.receiver.answered - self.parked()
            said = "\n".join(line[:300] for line in self.worker.output.splitlines()[-60:])
            text = f"{error}; {self.broker.held()} held, missing {missing}\n{said}"
            raise AssertionError(text) from None

    def _closed(self) -> bool:
        # The cheap questions first: the others start a process each.
        missing = self.accepted() - self.receiver.answered
        return not (missing and missing - self.parked()) and self.broker.held() == 0

    def parked(self) -> set[str]:
        """Return the ids of the dead letters."""
        lines = self._command("webhooks", "dead", "export").splitlines()
        return {json.loads(line)["delivery"] for line in lines}

    def _row(self, fault: str, seconds: float) -> Row:
        accepted = self.accepted()
        delivered = accepted & self.receiver.answered
        parked = (self.parked() & accepted) - delivered
        return Row(
            fault=fault,
            pool=self.pool,
            broker=self.broker.name,
            events=self.size.events,
            deliveries=len(accepted),
            delivered=len(delivered),
            parked=len(parked),
            lost=len(accepted) - len(delivered) - len(parked),
            duplicates=self.receiver.repeated.total(),
            refused=sum(line.startswith("refused") for e in self._emitters for line in e.lines),
            seconds=seconds,
        )

    def _configure(self, spool_bytes: int) -> None:
        (self._folder / "celeryconfig.py").write_text(CONFIG.format(spool_bytes=spool_bytes))
        common = {"events": ["*"], "url": self.receiver.url, "timeoutMs": 1000}
        webhooks = {"webhooks": [common | hook for hook in HOOKS]}
        (self._folder / "webhooks.json").write_text(json.dumps(webhooks))

    @property
    def _env(self) -> dict[str, str]:
        return {
            "CELERY_BROKER_URL": self.broker.url,
            "IMMICH_WEBHOOKS_CONFIG": str(self._folder / "webhooks.json"),
            "WEBHOOKS_SPOOL": str(self._folder / "spool"),
            "PYTHONPATH": str(self._folder),
        }

    def _process(self, *command: str) -> Process:
        process = Process(*command, cwd=self._folder, env=self._env)
        self._stack.callback(process.end)
        return process

    def _command(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "celery", "-A", "webhooks_celery", *arguments],
            cwd=self._folder,
            env=environment(**self._env),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def kill_worker(self) -> None:
        """Kill it with its children, as when the machine goes."""
        os.killpg(self.worker.pid, signal.SIGKILL)
        self.worker.wait()
