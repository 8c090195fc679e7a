"""Deliveries a second to nine hooks while a tenth one hangs until its deadline, and while it works.

Ten hooks get an even mix of deliveries, all queued before. One hook's receiver never answers; its
deadline is 10 s and it has a single attempt. The rate is that of the other nine, whose receiver
answers at once, from their first to their last request.
"""

from __future__ import annotations

from .brokers import Broker, running_brokers
from .contenders import BROKERS, RECOMMENDED, SETUPS, ours
from .deliver import check, rate, warm_up
from .receivers import Receiver, slow_receiver
from .report import Metric, Result, Row
from .rounds import Options, in_rounds, wanted
from .workers import hook, workers

ROUNDS, DELIVERIES = 3, 2_000
HOOKS = 10
DEADLINE_MS = 10_000
METRICS = [Metric(key="rate", title="deliveries to the other hooks", unit="1/s")]


def run(options: Options) -> Result:
    """Run the table."""
    with running_brokers() as brokers, slow_receiver(0) as receiver:
        cells = [
            (ours(broker, RECOMMENDED), hangs)
            for broker in BROKERS
            if broker in brokers
            for hangs in (False, True)
        ]
        names = [
            f"{contender.name}, {'one hook hangs' if hangs else 'all hooks answer'}"
            for contender, hangs in cells
        ]
        kept = [index for index, name in enumerate(names) if wanted(name, options.only)]
        cells, names = [cells[index] for index in kept], [names[index] for index in kept]
        result = Result(
            table="isolation",
            title="One hook of ten hangs",
            metrics=METRICS,
            rows=[
                Row(
                    name=name,
                    against=name.replace("one hook hangs", "all hooks answer") if hangs else None,
                )
                for name, (_, hangs) in zip(names, cells)
            ],
            notes=[f"{RECOMMENDED}: {SETUPS[RECOMMENDED]}"],
            options=options.shown(),
        )
        result.versions.update({broker.name: broker.version for broker in brokers.values()})

        def measure(index: int) -> dict[str, float]:
            contender, hangs = cells[index]
            broker = brokers[contender.broker]
            return {"rate": _rate(contender.pool, broker, receiver, hangs, options.deliveries)}

        return in_rounds(result, options.rounds, measure)


def _rate(pool: str, broker: Broker, receiver: Receiver, hangs: bool, count: int) -> float:
    last = f"{receiver.url}/{'hang' if hangs else 'last'}"
    hooks = [
        hook(
            last if number == HOOKS - 1 else f"{receiver.url}/other/{number}",
            id=f"hook-{number}",
            events=[f"Event{number}"],
            timeoutMs=DEADLINE_MS,
            retries=1,
        )
        for number in range(HOOKS)
    ]
    hooks.append(hook(f"{receiver.url}/other/warm-up"))
    events = [f"Event{number}" for number in range(HOOKS)]
    with workers(ours(broker.name, pool), broker, receiver, hooks) as running:
        warm_up(running, receiver)
        running.pause()
        ids = running.queue(count, events)
        others = [delivery for number, delivery in enumerate(ids) if number % HOOKS != HOOKS - 1]
        place = receiver.log.end()
        running.resume()
        receiver.log.wait_for(len(others), place, "/other/")
        requests = [
            request for request in receiver.log.since(place) if request.path.startswith("/other/")
        ]
    check(others, requests)
    return rate(requests)
