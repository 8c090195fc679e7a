"""Time until a worker is ready, and its memory; time until a command or an import is done.

A worker: from its start until it says that it is ready, and its proportional set size then; the
bare one has the same settings. `--deliveries` has no meaning here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from time import perf_counter

from .brokers import Broker, running_brokers
from .contenders import BROKERS, RECOMMENDED, Contender, bare, ours
from .machine import Failed, cpu_seconds, pss_mib, until
from .report import Metric, Result, Row
from .rounds import Options, in_rounds, wanted
from .workers import hook, setting, worker_command

ROUNDS, DELIVERIES = 5, 0
METRICS = [
    Metric(key="time", title="time", unit="s"),
    Metric(key="cpu", title="CPU", unit="s"),
    Metric(key="memory", title="memory", unit="MiB"),
]
#: Runs ``celery`` as if this package had no commands there.
WITHOUT_OURS = """
from importlib import metadata
found = metadata.entry_points
metadata.entry_points = lambda **of: [
    each for each in found(**of) if not each.value.startswith("webhooks_celery")
]
from celery.__main__ import main
main()
"""
COMMANDS = {
    "python": ["-c", "pass"],
    "import celery": ["-c", "import celery"],
    "ours, import webhooks_celery": ["-c", "import webhooks_celery"],
    "ours, import emit": ["-c", "from webhooks_celery import emit"],
    "celery --version, without our commands": ["-c", WITHOUT_OURS, "--version"],
    "ours, celery --version": ["-m", "celery", "--version"],
    "ours, celery webhooks check": ["-m", "celery", "webhooks", "check"],
}
AGAINST = {
    "ours, celery --version": "celery --version, without our commands",
    "ours, celery webhooks check": "celery --version, without our commands",
}
URL = "http://127.0.0.1:9/"


def run(options: Options) -> Result:
    """Run the table."""
    with running_brokers() as brokers:
        contenders: list[Contender] = []
        for name in BROKERS:
            if name in brokers:
                contenders += [bare(name, RECOMMENDED), ours(name, RECOMMENDED)]
        cells: list[str | Contender] = [*COMMANDS, *contenders]
        cells = [cell for cell in cells if wanted(_name(cell), options.only)]
        result = Result(
            table="startup",
            title="Starting",
            metrics=METRICS,
            rows=[Row(name=_name(cell), against=_against(cell)) for cell in cells],
            options={"rounds": options.rounds},
        )
        result.versions.update({broker.name: broker.version for broker in brokers.values()})
        any_broker = next(iter(brokers.values()))

        def measure(index: int) -> dict[str, float]:
            cell = cells[index]
            if isinstance(cell, str):
                return _command(any_broker, COMMANDS[cell])
            return _worker(brokers[cell.broker], cell)

        return in_rounds(result, options.rounds, measure)


def _name(cell: str | Contender) -> str:
    return cell if isinstance(cell, str) else f"{cell.kind}, worker, {cell.pool}, {cell.broker}"


def _against(cell: str | Contender) -> str | None:
    if isinstance(cell, str):
        return AGAINST.get(cell)
    return _name(bare(cell.broker, cell.pool)) if cell.kind == "ours" else None


def _command(broker: Broker, arguments: list[str]) -> dict[str, float]:
    with (
        setting(broker, [hook(URL)]) as (folder, env),
        (folder / "output.txt").open("w+") as output,
    ):
        started = perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, env=env, stdout=output, stderr=output
        )
        _, status, used = os.wait4(process.pid, 0)
        elapsed = perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if status:
            raise Failed(f"{arguments}: {(folder / 'output.txt').read_text()[-3000:]}")
    return {"time": elapsed, "cpu": used.ru_utime + used.ru_stime}


def _worker(broker: Broker, contender: Contender) -> dict[str, float]:
    broker.renew()
    with setting(broker, [hook(URL)], BENCHMARK_URL=URL) as (folder, env):
        log = folder / "worker.log"
        with log.open("w") as output:
            started = perf_counter()
            process = subprocess.Popen(
                worker_command(contender), cwd=folder, env=env, stdout=output, stderr=output
            )
        try:
            until(lambda: " ready." in log.read_text(), "the worker is ready", 60, every=0.01)
            return {
                "time": perf_counter() - started,
                "cpu": cpu_seconds([process.pid]),
                "memory": pss_mib([process.pid]),
            }
        finally:
            process.terminate()
            process.wait(60)
