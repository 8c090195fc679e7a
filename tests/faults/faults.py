"""The faults."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from faults.cell import Cell, Fault


def worker_killed(cell: Cell) -> None:
    cell.kill_worker()
    cell.start_worker()


def child_killed(cell: Cell) -> None:
    """One of its children after the other, as when memory runs out."""
    for child in cell.children():
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def worker_stopped(cell: Cell) -> None:
    cell.worker.ask_to_stop()
    assert cell.worker.wait(60) == 0
    cell.start_worker()


def broker_killed(cell: Cell) -> None:
    cell.broker.kill()
    cell.hold()
    cell.broker.start()


def broker_frozen(cell: Cell) -> None:
    cell.broker.freeze()
    cell.hold()
    cell.broker.thaw()


def broker_full(cell: Cell) -> None:
    """While attempts fail, so that retries have to be queued."""
    cell.broker.fill()
    cell.receiver.misbehave("reset")
    cell.hold()
    cell.broker.empty()
    cell.receiver.mend()


def receiver_down(cell: Cell) -> None:
    cell.receiver.down()
    cell.hold()
    cell.receiver.up()


def receiver_resets(cell: Cell) -> None:
    cell.receiver.misbehave("reset")
    cell.hold()
    cell.receiver.mend()


def receiver_hangs(cell: Cell) -> None:
    cell.receiver.misbehave("hang")
    cell.hold()
    cell.receiver.mend()


_ALL = [
    Fault(name="worker killed", happen=worker_killed),
    Fault(name="pool child killed", happen=child_killed, pools=("prefork",)),
    Fault(name="worker stopped", happen=worker_stopped),
    Fault(name="broker killed", happen=broker_killed),
    Fault(name="broker frozen", happen=broker_frozen),
    Fault(name="broker full", happen=broker_full),
    Fault(name="receiver down", happen=receiver_down),
    Fault(name="receiver resets", happen=receiver_resets),
    Fault(name="receiver hangs", happen=receiver_hangs),
    Fault(name="spool full, broker killed", happen=broker_killed, spool_bytes=40_000),
]
FAULTS = {fault.name: fault for fault in _ALL}
