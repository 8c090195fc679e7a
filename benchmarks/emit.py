"""CPU time of one `emit`, beside that of publishing bare messages of the same size.

`emit` to one hook against one `apply_async`, to 10 hooks against 10 of them, and `emit` of an event
that none of 1,000 hooks wants. All in one process that publishes over held connections, on RabbitMQ
with confirmation. The time is that process's CPU time (`time.process_time`), not the broker's.
`--deliveries` is the number of calls in a round.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from celery import Celery

from .apps import payload
from .brokers import QUEUE, Broker, running_brokers
from .machine import in_child
from .report import Metric, Result, Row
from .rounds import Options, cpu_microseconds, interleaved, wanted
from .workers import hook, setting

ROUNDS, DELIVERIES = 7, 1_000
HOOKS = 1_000
FAN_OUT = 10
METRICS = [
    Metric(key="cpu", title="CPU per call", unit="µs", log=True),
    Metric(key="rate", title="calls", unit="1/s", plotted=False),
]
BARE_ONE, BARE_MANY = "apply_async", f"{FAN_OUT} × apply_async"
#: What is measured, and what it is compared with.
CALLS = {
    BARE_ONE: None,
    "ours, emit to one hook": BARE_ONE,
    BARE_MANY: None,
    f"ours, emit to {FAN_OUT} hooks": BARE_MANY,
    f"ours, emit to none of {HOOKS:,} hooks": BARE_ONE,
}


def run(options: Options) -> Result:
    """Run the table."""
    with running_brokers() as brokers:
        rows = []
        for broker in brokers.values():
            found = _measured(broker, options)
            rows += [
                Row(
                    name=f"{call}, {broker.name}",
                    against=against and f"{against}, {broker.name}",
                    samples=found[call],
                )
                for call, against in CALLS.items()
                if wanted(f"{call}, {broker.name}", options.only)
            ]
        result = Result(
            table="emit", title="Emitting", metrics=METRICS, rows=rows, options=options.shown()
        )
        result.versions.update({broker.name: broker.version for broker in brokers.values()})
        return result


def _measured(broker: Broker, options: Options) -> dict[str, dict[str, list[float]]]:
    broker.renew()
    url = "http://127.0.0.1:9/"
    hooks = [hook(url, id="one", events=["One"])]
    hooks += [hook(url, id=f"ten-{n}", events=["Ten"]) for n in range(FAN_OUT)]
    hooks += [hook(url, id=f"other-{n}", events=[f"Other{n}"]) for n in range(HOOKS - len(hooks))]
    with setting(broker, hooks) as (folder, env):
        arguments = (str(options.rounds), str(options.deliveries))
        found: dict[str, dict[str, list[float]]] = in_child(
            "benchmarks.emit", *arguments, env=env, cwd=folder
        )
    return found


def _in_this_process(rounds: int, count: int) -> dict[str, dict[str, list[float]]]:
    bare = Celery("bare", config_source="webhooks_celery.defaults", set_as_current=False)
    if bare.connection_for_write().transport.driver_type == "amqp":
        bare.conf.broker_transport_options = {"confirm_publish": True}
    # Connected first, so that it has kombu's transport for Redis and not this package's.
    producer = bare.amqp.producer_pool.acquire(block=True)
    producer.connection.ensure_connection(max_retries=1)

    from webhooks_celery import emit
    from webhooks_celery.celery import app

    app.set_current()

    @bare.task(name="BareDelivery", shared=False)  # type: ignore[untyped-decorator]
    def task(hook: str, event: str, timestamp: str, payload: str, seen: str | None) -> None:
        """Published only."""

    told = payload(1)
    message = {
        "hook": "one",
        "event": "One",
        "timestamp": "2025-11-20T12:34:56.789Z",
        "payload": json.dumps(told, separators=(",", ":")),
        "seen": None,
    }

    def publish() -> None:
        task.apply_async(kwargs=message, queue=QUEUE, producer=producer)

    def publish_many() -> None:
        for _ in range(FAN_OUT):
            publish()

    calls: list[Callable[[], Any]] = [
        publish,
        lambda: emit("One", told),
        publish_many,
        lambda: emit("Ten", told),
        lambda: emit("None", told),
    ]

    def measured(call: Callable[[], Any]) -> Callable[[], dict[str, float]]:
        def measure() -> dict[str, float]:
            found = cpu_microseconds(call, count)
            with app.connection_for_write() as connection:
                connection.default_channel.queue_purge(QUEUE)
            return found

        return measure

    found = interleaved({name: measured(call) for name, call in zip(CALLS, calls)}, rounds)
    producer.release()
    return found


if __name__ == "__main__":
    print(json.dumps(_in_this_process(int(sys.argv[1]), int(sys.argv[2]))))
