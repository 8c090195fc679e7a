"""Deliveries a second to slow receivers, as a share of what is possible.

Possible is concurrency ÷ latency: with 50 attempts at a time that take 100 ms each, 500 a second.
One worker process; receivers that take 100 ms and 1 s, for at 100 ms a few hundred attempts at a
time would be more than a processor can make. Measured as in `deliver`.
"""

from __future__ import annotations

from contextlib import ExitStack

from .brokers import running_brokers
from .contenders import BROKERS, Contender, Setup, ours
from .deliver import delivered
from .receivers import slow_receiver
from .report import Metric, Result, Row
from .rounds import Options, in_rounds, wanted
from .workers import workers

ROUNDS, DELIVERIES = 3, 10_000
POOLS = ("threads", "gevent")
#: Seconds that the receiver takes, and attempts at a time.
LOADS = ((0.1, 10), (0.1, 50), (1.0, 100), (1.0, 200), (1.0, 500))
#: How many times each thread or greenlet gets something to deliver, at most.
WAVES = 20
METRICS = [
    Metric(key="share", title="share of what is possible", unit="1"),
    Metric(key="rate", title="deliveries", unit="1/s"),
    Metric(key="cpu", title="worker CPU per 1,000", unit="s"),
]


def run(options: Options) -> Result:
    """Run the table."""
    with running_brokers() as brokers, ExitStack() as stack:
        cells = [
            (latency, ours(broker, pool, Setup(processes=1, concurrency=concurrency)))
            for broker in BROKERS
            if broker in brokers
            for pool in POOLS
            for latency, concurrency in LOADS
        ]
        cells = [cell for cell in cells if wanted(_name(*cell), options.only)]
        latencies = sorted({latency for latency, _ in cells})
        receivers = {latency: stack.enter_context(slow_receiver(latency)) for latency in latencies}
        ceilings = [receiver.ceiling(connections=1000) for receiver in receivers.values()]
        result = Result(
            table="slow",
            title="Delivering to slow receivers",
            metrics=METRICS,
            rows=[Row(name=_name(*cell)) for cell in cells],
            notes=ceilings,
            options=options.shown(),
        )
        result.versions.update({broker.name: broker.version for broker in brokers.values()})

        def measure(index: int) -> dict[str, float]:
            latency, contender = cells[index]
            broker, receiver = brokers[contender.broker], receivers[latency]
            concurrency = contender.setup.concurrency or 1
            count = min(options.deliveries, WAVES * concurrency)
            with workers(contender, broker, receiver) as running:
                found = delivered(running, broker, receiver, count)
            # From the first answer to the last; the first attempts began one latency before.
            rate = count / ((count - 1) / found["rate"] + latency)
            return found | {"rate": rate, "share": rate / (concurrency / latency)}

        return in_rounds(result, options.rounds, measure)


def _name(latency: float, contender: Contender) -> str:
    at_a_time = contender.setup.concurrency
    return f"{contender.name}, {latency * 1000:g} ms, {at_a_time} at a time"
