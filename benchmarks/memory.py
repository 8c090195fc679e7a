"""Memory of the recommended workers: idle, with 100,000 deliveries queued, with as many waiting.

Proportional set size of the workers and all their children. Queued: all attempts under way hang, so
what is behind them stays in the queue. Waiting: the receiver is down, every delivery has failed
once and its next attempt is an hour away. `--deliveries` is how many.
"""

from __future__ import annotations

import threading

from .brokers import Broker, running_brokers
from .contenders import BROKERS, RECOMMENDED, SETUPS, Contender, ours
from .deliver import SETTLE, warm_up
from .machine import free_port, until
from .receivers import Receiver, slow_receiver
from .report import Metric, Result, Row
from .rounds import Options, in_rounds, wanted
from .workers import Workers, hook, workers

ROUNDS, DELIVERIES = 1, 100_000
HOUR_MS = 3_600_000
METRICS = [
    Metric(key="idle", title="idle", unit="MiB"),
    Metric(key="queued", title="with deliveries queued", unit="MiB"),
    Metric(key="waiting", title="with deliveries waiting", unit="MiB"),
]


def run(options: Options) -> Result:
    """Run the table."""
    with running_brokers() as brokers, slow_receiver(0) as receiver:
        contenders = [ours(broker, RECOMMENDED) for broker in BROKERS if broker in brokers]
        contenders = [c for c in contenders if wanted(c.name, options.only)]
        result = Result(
            table="memory",
            title=f"Memory of {SETUPS[RECOMMENDED].processes} workers",
            metrics=METRICS,
            rows=[Row(name=contender.name) for contender in contenders],
            notes=[f"{RECOMMENDED}: {SETUPS[RECOMMENDED]}"],
            options=options.shown(),
        )
        result.versions.update({broker.name: broker.version for broker in brokers.values()})

        def measure(index: int) -> dict[str, float]:
            contender = contenders[index]
            broker = brokers[contender.broker]
            return {
                **_queued(contender, broker, receiver, options.deliveries),
                **_waiting(contender, broker, receiver, options.deliveries),
            }

        return in_rounds(result, options.rounds, measure)


def _queued(
    contender: Contender, broker: Broker, receiver: Receiver, count: int
) -> dict[str, float]:
    hooks = [
        hook(f"{receiver.url}/"),
        hook(f"{receiver.url}/hang", id="hangs", events=["Hang"], timeoutMs=HOUR_MS),
    ]
    with workers(contender, broker, receiver, hooks) as running:
        warm_up(running, receiver)
        found = {"idle": running.pss_mib()}
        running.queue(count, ["Hang"])
        threading.Event().wait(SETTLE)
        found["queued"] = running.pss_mib()
        _wait_for_broker(broker, count)
        running.kill()
    return found


def _waiting(
    contender: Contender, broker: Broker, receiver: Receiver, count: int
) -> dict[str, float]:
    nobody = f"http://127.0.0.1:{free_port()}/"
    hooks = [
        hook(f"{receiver.url}/"),
        hook(nobody, id="down", events=["Down"], retries=2, backoffMs=HOUR_MS),
    ]
    with workers(contender, broker, receiver, hooks) as running:
        warm_up(running, receiver)
        running.queue(count, ["Down"])
        _wait_for_failures(running, count)
        _wait_for_broker(broker, count)
        memory = running.pss_mib()
        running.kill()
    return {"waiting": memory}


def _wait_for_failures(running: Workers, count: int) -> None:
    def all_failed() -> bool:
        return running.logged().count(" Next attempt in ") >= count

    until(all_failed, f"{count} attempts have failed", timeout=3600, every=1)


def _wait_for_broker(broker: Broker, count: int) -> None:
    """Make sure that the broker still has them all; RabbitMQ counts every few seconds."""
    until(lambda: sum(broker.held().values()) >= count, f"the broker holds {count}", 30)
