"""The short form: each fault once or twice, few events. ``faults.table --long`` does them all."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest
from faults.brokers import BROKERS, Broker, installed
from faults.cell import SHORT, Cell
from faults.faults import FAULTS

#: Where CI is true every broker must be there; elsewhere those that are installed are tested.
CELLS = [
    cell
    for cell in (
        ("Redis", "worker killed", "threads"),
        ("Redis", "pool child killed", "prefork"),
        ("Redis", "broker killed", "prefork"),
        ("Redis", "broker frozen", "threads"),
        ("Redis", "receiver hangs", "threads"),
        ("RabbitMQ", "worker killed", "prefork"),
        ("RabbitMQ", "worker stopped", "threads"),
        ("RabbitMQ", "broker killed", "threads"),
        ("RabbitMQ", "broker full", "prefork"),
        ("RabbitMQ", "receiver down", "prefork"),
        ("RabbitMQ", "receiver resets", "threads"),
    )
    if cell[0] in installed() or os.environ.get("CI")
]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Broker]]:
    """Starts each broker once, when it is first needed."""
    with ExitStack() as stack:

        @cache
        def server(name: str) -> Broker:
            started = BROKERS[name](tmp_path_factory.mktemp("broker"))
            stack.callback(started.end)
            started.start()
            return started

        yield server


@pytest.fixture
def broker(request: pytest.FixtureRequest, servers: Callable[[str], Broker]) -> Broker:
    return servers(request.param)


on_redis = pytest.mark.parametrize("broker", ["Redis"], indirect=True)


@pytest.mark.parametrize(("broker", "fault", "pool"), CELLS, indirect=["broker"])
def test_the_accounts_close(broker: Broker, fault: str, pool: str, tmp_path: Path) -> None:
    with Cell(broker, pool, SHORT, tmp_path) as cell:
        row = cell.run(FAULTS[fault])
    assert row.deliveries == 3 * SHORT.events
    assert row.lost == 0


@on_redis
def test_what_a_full_spool_cannot_take_is_refused(broker: Broker, tmp_path: Path) -> None:
    with Cell(broker, "threads", SHORT, tmp_path) as cell:
        row = cell.run(FAULTS["spool full, broker killed"])
    assert row.refused > 0
    assert row.lost == 0


@on_redis
def test_a_healthy_delivery_survives_any_number_of_restarts_of_the_broker(
    broker: Broker, tmp_path: Path
) -> None:
    """More often than what kills its worker is put up with."""
    with Cell(broker, "threads", SHORT, tmp_path) as cell:
        cell.prepare()
        emitter = cell.emit(0, SHORT.events)
        for _ in range(6):
            seen = len(cell.receiver.attempts)
            cell.receiver.wait_for(
                lambda seen=seen: len(cell.receiver.attempts) > seen + 5, "deliveries"
            )
            broker.kill()
            broker.start()
        emitter.wait()
        cell.wait_until_closed()
        assert cell.parked() == set()


@on_redis
def test_everything_killed_at_once(broker: Broker, tmp_path: Path) -> None:
    """Worker, producer and broker: every id that emit has returned is delivered afterwards."""
    with Cell(broker, "prefork", SHORT, tmp_path) as cell:
        cell.prepare()
        emitter = cell.emit(0, 100_000)
        emitter.wait_for_line("accepted", count=20)
        broker.kill()
        seen = len(cell.accepted())
        emitter.wait_for_line("accepted", count=seen // 3 + 2)  # these are in the spool
        os.killpg(emitter.pid, signal.SIGKILL)
        cell.kill_worker()
        emitter.wait()
        broker.start()
        cell.start_worker()
        cell.wait_until_closed()
