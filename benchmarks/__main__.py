"""``python -m benchmarks NAME``: run a table and keep what came of it."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

from .machine import Failed
from .report import load
from .rounds import Options

TABLES = ("deliver", "emit", "transport", "slow", "isolation", "memory", "check", "startup")


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="table", metavar="NAME", required=True)
    for name in TABLES:
        table = import_module(f".{name}", __package__)
        command = commands.add_parser(
            name,
            help=(table.__doc__ or "").splitlines()[0],
            description=table.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument("--rounds", type=int, default=table.ROUNDS)
        command.add_argument(
            "--deliveries",
            type=int,
            default=table.DELIVERIES,
            metavar="N",
            help=f"or whatever else is counted; {table.DELIVERIES:,} when not given",
        )
        command.add_argument(
            "--only",
            nargs="+",
            default=[],
            metavar="CONTENDER",
            help='those whose names have these words: --only naive "ours redis threads"',
        )
        command.add_argument("--out", type=Path, default=Path("benchmarks/results"))
        if name in ("deliver", "transport"):
            command.add_argument("--tls", action="store_true", help="to a receiver on https")
    draw = commands.add_parser("draw", help="Draw table and plots again from a result's JSON.")
    draw.add_argument("file", type=Path)
    asked = parser.parse_args()
    if asked.table == "draw":
        result, folder = load(asked.file), asked.file.parent
    else:
        folder = asked.out
        options = Options(
            rounds=asked.rounds,
            deliveries=asked.deliveries,
            only=tuple(asked.only),
            out=asked.out,
            tls=getattr(asked, "tls", False),
        )
        try:
            result = import_module(f".{asked.table}", __package__).run(options)
        except Failed as error:
            sys.exit(f"{asked.table}: {error}")
    print(result.text())
    for path in result.save(folder):
        print(path)
    if result.failures:
        sys.exit(f"Does not count: {', '.join(result.failures)}")


if __name__ == "__main__":
    main()
