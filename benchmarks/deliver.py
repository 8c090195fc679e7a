"""Deliveries a second and the worker's CPU time for 1,000, to a receiver that answers at once.

All deliveries are queued while the workers, which have delivered some before, are paused. The rate
is taken from the receiver's log: from the first to the last request. CPU time is that of the
workers with all their children, from the end of the pause until everything is acknowledged. A run
counts only if every id arrived exactly once and the broker holds nothing at the end.

Contenders: this package (`ours`); a task that does nothing but send the same prepared bytes with
the same settings (`bare`); `requests.post` in a task with Celery's defaults (`naive`); a worker for
BullMQ on Node (`bullmq`).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence

from .brokers import Broker, running_brokers
from .contenders import Contender, all_of_them, bare, naive
from .machine import Failed, until
from .receivers import Receiver, Request, nginx
from .report import Metric, Result, Row
from .rounds import Options, in_rounds, wanted
from .workers import Workers, bullmq_versions, workers

ROUNDS, DELIVERIES = 5, 5_000
#: Deliveries before the ones that are measured.
WARM_UP = 200
#: How long workers acknowledge after their last request, in seconds.
SETTLE = 0.5
#: How long RabbitMQ may take until it has counted what is left, in seconds.
EMPTY_WITHIN = 15.0
METRICS = [
    Metric(key="rate", title="deliveries", unit="1/s"),
    Metric(key="cpu", title="worker CPU per 1,000", unit="s"),
    Metric(key="broker", title="broker CPU per 1,000", unit="s", plotted=False),
]


def run(options: Options) -> Result:
    """Run the table."""
    with running_brokers() as brokers, nginx(tls=options.tls) as receiver:
        contenders = [
            contender
            for contender in all_of_them()
            if contender.broker in brokers and wanted(contender.name, options.only)
        ]
        ceiling = receiver.ceiling()
        print(ceiling)
        rows = [Row(name=contender.name, against=_against(contender)) for contender in contenders]
        result = Result(
            table="deliver-tls" if options.tls else "deliver",
            title=f"Delivering to {receiver.name}",
            metrics=METRICS,
            rows=rows,
            baseline=naive.name if naive in contenders else None,
            notes=[
                ceiling,
                "its own baseline: of ours the bare task with the same pool and broker",
                *(f"{contender.name}: {contender.setup}" for contender in contenders),
            ],
            options=options.shown(),
        )
        result.versions.update({broker.name: broker.version for broker in brokers.values()})
        if any(contender.kind == "bullmq" for contender in contenders):
            result.versions.update(bullmq_versions())

        def measure(index: int) -> dict[str, float]:
            contender = contenders[index]
            broker = brokers[contender.broker]
            with workers(contender, broker, receiver) as running:
                return delivered(running, broker, receiver, options.deliveries)

        return in_rounds(result, options.rounds, measure)


def _against(contender: Contender) -> str | None:
    if contender.kind != "ours":
        return None
    return bare(contender.broker, contender.pool).name


def delivered(running: Workers, broker: Broker, receiver: Receiver, count: int) -> dict[str, float]:
    """Let the workers deliver so many; return rate and CPU times.

    Raises:
        Failed: the accounts do not close.
    """
    warm_up(running, receiver)
    running.pause()
    ids = running.queue(count)
    place = receiver.log.end()
    worker, server = running.cpu_seconds(), broker.cpu_seconds()
    running.resume()
    try:
        receiver.log.wait_for(count, place)
    except Failed as error:
        raise Failed(f"{error}\n{running.logged()[-3000:]}") from None
    threading.Event().wait(SETTLE)
    worker, server = running.cpu_seconds() - worker, broker.cpu_seconds() - server
    requests = receiver.log.since(place)
    check(ids, requests)
    try:
        until(lambda: not broker.held(), "the broker is empty", EMPTY_WITHIN)
    except Failed as error:
        raise Failed(f"{error}: {broker.held()}") from None
    return {
        "rate": rate(requests),
        "cpu": worker / count * 1000,
        "broker": server / count * 1000,
    }


def warm_up(running: Workers, receiver: Receiver) -> None:
    """Let every process deliver something: connections are made, modules loaded."""
    place = receiver.log.end()
    running.queue(WARM_UP)
    receiver.log.wait_for(WARM_UP, place)
    threading.Event().wait(SETTLE)


def rate(requests: Sequence[Request]) -> float:
    """Return the requests a second from the first to the last."""
    times = [request.time for request in requests]
    return (len(times) - 1) / (max(times) - min(times))


def check(ids: Sequence[str], requests: Sequence[Request]) -> None:
    """Make sure that every delivery arrived, once, and was answered.

    Raises:
        Failed: one did not.
    """
    arrived = Counter(request.delivery for request in requests)
    if arrived != Counter(ids) or len(set(ids)) != len(ids):
        missing = len(set(ids) - set(arrived))
        again = sum(count - 1 for count in arrived.values())
        raise Failed(f"not exactly once: {missing} missing, {again} more than once")
    failed = [request.status for request in requests if request.status != 204]
    if failed:
        raise Failed(f"answered with {Counter(failed)}")
