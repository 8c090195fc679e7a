"""Who is compared, and how each is set up: the one place to tune."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """How many workers, and how each is started; None is Celery's default."""

    processes: int
    concurrency: int | None
    prefetch: int | None = None  #: ``worker_prefetch_multiplier``


#: By pool.
SETUPS = {
    "prefork": Setup(processes=2, concurrency=2),
    "threads": Setup(processes=2, concurrency=50),
    "gevent": Setup(processes=2, concurrency=50),
}
#: Lines for the ``celeryconfig.py`` of ours and of the bare task, by pool.
SETTINGS = {
    "gevent": "broker_heartbeat = 0\n",  # or else it crawls on RabbitMQ
}
NAIVE = Setup(processes=1, concurrency=None)
BULLMQ = Setup(processes=2, concurrency=50)
#: The set-up whose memory is measured, and that meets receivers which hang.
RECOMMENDED = "threads"

POOLS = tuple(SETUPS)
BROKERS = ("Redis", "RabbitMQ")


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """One way to deliver."""

    kind: str  #: ``ours``, ``bare``, ``naive`` or ``bullmq``
    broker: str
    pool: str
    setup: Setup
    stock_transport: bool = False  #: kombu's own for Redis and not this package's

    @property
    def name(self) -> str:
        words = [self.kind, self.pool, self.broker]
        return ", ".join([*words, "kombu's transport"] if self.stock_transport else words)

    @property
    def module(self) -> str:
        """The module with the Celery app and a function that emits."""
        return f"benchmarks.apps.{self.kind}"

    @property
    def late_acks(self) -> bool:
        return self.kind in ("ours", "bare")


def ours(broker: str, pool: str, setup: Setup | None = None) -> Contender:
    """This package, set up as its pool is by default."""
    return Contender(kind="ours", broker=broker, pool=pool, setup=setup or SETUPS[pool])


def bare(broker: str, pool: str, stock_transport: bool = False) -> Contender:
    """A task that does nothing but send the same bytes, with the same set-up."""
    return Contender(
        kind="bare",
        broker=broker,
        pool=pool,
        setup=SETUPS[pool],
        stock_transport=stock_transport,
    )


naive = Contender(kind="naive", broker="Redis", pool="prefork", setup=NAIVE)
bullmq = Contender(kind="bullmq", broker="Redis", pool="node", setup=BULLMQ)


def all_of_them() -> Iterator[Contender]:
    """Yield whoever delivers to a receiver that answers at once."""
    yield naive
    yield bullmq
    for broker in BROKERS:
        for pool in POOLS:
            yield bare(broker, pool)
            if broker == "Redis":
                yield bare(broker, pool, stock_transport=True)
            yield ours(broker, pool)
