"""CPU time of validating a file with 10,000 hooks, and of finding an event's hooks among 1,000.

`--deliveries` is the number of look-ups in a round.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from .machine import environment, in_child
from .report import Metric, Result, Row
from .rounds import Options, cpu_microseconds, interleaved, wanted

ROUNDS, DELIVERIES = 5, 10_000
VALIDATED, MATCHED = 10_000, 1_000
METRICS = [Metric(key="cpu", title="CPU per call", unit="µs", log=True)]


def run(options: Options) -> Result:
    """Run the table."""
    found: dict[str, dict[str, list[float]]] = in_child(
        "benchmarks.check", str(options.rounds), str(options.deliveries), env=environment()
    )
    return Result(
        table="check",
        title="Reading the webhooks file, finding hooks",
        metrics=METRICS,
        rows=[
            Row(name=name, samples=samples)
            for name, samples in found.items()
            if wanted(name, options.only)
        ],
        options=options.shown(),
    )


def _hooks(count: int) -> list[dict[str, Any]]:
    """Return hooks as they might be: names, prefixes, headers; one wants everything."""
    kinds = ("Person", "Album", "Asset", "User", "Memory")
    hooks: list[dict[str, Any]] = [
        {
            "id": f"hook-{number}",
            "events": [f"{kinds[number % 5]}{number}Create", f"{kinds[number % 5]}{number}Up*"],
            "url": f"https://receiver-{number}.example/in?source=photos",
            "headers": {"Authorization": "Bearer ${TOKEN}"},
            "retries": 5,
        }
        for number in range(1, count)
    ]
    return [*hooks, {"id": "all", "events": ["*"], "url": "http://receiver.example/"}]


def _in_this_process(rounds: int, count: int) -> dict[str, dict[str, list[float]]]:
    from webhooks_celery.errors import ConfigError
    from webhooks_celery.schema import parse

    environ = {"TOKEN": "secret"}
    large = json.dumps({"webhooks": _hooks(VALIDATED)}).encode()
    small = json.dumps({"webhooks": _hooks(MATCHED)}).encode()
    faulty = large.replace(b'"retries": 5', b'"retries": 0')
    hooks = parse(small, "webhooks.json", environ)

    def refused() -> None:
        try:
            parse(faulty, "webhooks.json", environ)
        except ConfigError:
            return
        raise AssertionError("the file has faults")

    calls: dict[str, tuple[Callable[[], Any], int]] = {
        f"json.loads of {VALIDATED:,} hooks": (lambda: json.loads(large), 1),
        f"ours, validate {VALIDATED:,} hooks": (
            lambda: parse(large, "webhooks.json", environ),
            1,
        ),
        f"ours, list the faults of {VALIDATED:,} faulty hooks": (refused, 1),
        f"ours, match 1 of {MATCHED:,} hooks": (lambda: hooks.matching("Nothing"), count),
        f"ours, match 2 of {MATCHED:,} hooks": (lambda: hooks.matching("Person500Create"), count),
    }

    def measured(call: Callable[[], Any], times: int) -> Callable[[], dict[str, float]]:
        return lambda: {"cpu": cpu_microseconds(call, times)["cpu"]}

    return interleaved({name: measured(*call) for name, call in calls.items()}, rounds)


if __name__ == "__main__":
    print(json.dumps(_in_this_process(int(sys.argv[1]), int(sys.argv[2]))))
