"""Run cells of the fault suite and print what came of them as a Markdown table.

``PYTHONPATH=tests python -m faults.table --long --write docs/reliability.md``
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from faults.brokers import BROKERS, installed
from faults.cell import LONG, SHORT, Cell, Row, Size
from faults.faults import FAULTS

BEGIN, END = "<!-- faults: begin -->\n", "<!-- faults: end -->\n"
HEAD = """\
| fault | pool | broker | events | deliveries | delivered | parked | lost | duplicates | closed in |
|---|---|---|---|---|---|---|---|---|---|
"""


def line(row: Row) -> str:
    return (
        f"| {row.fault} | {row.pool} | {row.broker} | {row.events} | {row.deliveries} "
        f"| {row.delivered} | {row.parked} | {row.lost} | {row.duplicates} "
        f"| {row.seconds:.0f} s |\n"
    )


def rows(
    size: Size, brokers: Iterable[str], faults: list[str], pools: list[str]
) -> Iterable[Row | None]:
    """Yield what came of each cell, None if its accounts did not close."""
    for name in brokers:
        with tempfile.TemporaryDirectory() as data:
            broker = BROKERS[name](Path(data))
            try:
                broker.start()
                for fault in faults:
                    for pool in pools:
                        if pool in FAULTS[fault].pools:
                            with (
                                tempfile.TemporaryDirectory() as folder,
                                Cell(broker, pool, size, Path(folder)) as cell,
                            ):
                                try:
                                    yield cell.run(FAULTS[fault])
                                except AssertionError as error:
                                    print(f"{fault}, {pool}, {name}: {error}", file=sys.stderr)
                                    yield None
            finally:
                broker.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--long", action="store_true", help="1,000 events, faults of 20 seconds")
    parser.add_argument("--write", type=Path, help="put the table between its marks in this file")
    parser.add_argument("--broker", choices=BROKERS, action="append", default=[])
    parser.add_argument("--fault", choices=FAULTS, action="append", default=[])
    parser.add_argument("--pool", choices=["prefork", "threads"], action="append", default=[])
    asked = parser.parse_args()
    table, failed = HEAD, 0
    print(HEAD, end="", flush=True)
    for row in rows(
        LONG if asked.long else SHORT,
        asked.broker or installed(),
        asked.fault or list(FAULTS),
        asked.pool or ["prefork", "threads"],
    ):
        if row is None:
            failed += 1
            continue
        table += line(row)
        print(line(row), end="", flush=True)
    if asked.write:
        before, _, rest = asked.write.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        asked.write.write_text(before + BEGIN + table + END + after, encoding="utf-8")
    if failed:
        sys.exit(f"{failed} cells did not close")


if __name__ == "__main__":
    main()
