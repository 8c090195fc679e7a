"""What the tables share: their options, and rounds that take the contenders in turn."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from .machine import Failed
from .report import Result


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What was asked for on the command line; None: the table's own default."""

    rounds: int
    deliveries: int
    only: tuple[str, ...] = ()
    out: Path
    tls: bool = False

    def shown(self) -> dict[str, Any]:
        return {
            "rounds": self.rounds,
            "deliveries": self.deliveries,
            **({"tls": True} if self.tls else {}),
        }


def in_rounds(result: Result, rounds: int, measure: Callable[[int], Mapping[str, float]]) -> Result:
    """Measure every row once in each round, each round beginning with another one.

    A row that fails once is out: it has no samples then, and the result says why. ``measure`` gets
    a row's index and returns a sample for each metric.
    """
    rows = result.rows
    for number in range(rounds):
        first = number % max(1, len(rows))
        for index in [*range(first, len(rows)), *range(first)]:
            name = rows[index].name
            if name in result.failures:
                continue
            try:
                measured = measure(index)
            except Failed as error:
                result.failures[name] = str(error)
                rows[index].samples.clear()
                print(f"round {number + 1}/{rounds}: {name}: FAILED: {error}", flush=True)
                continue
            rows[index].add(measured)
            shown = ", ".join(f"{key} {value:.4g}" for key, value in measured.items())
            print(f"round {number + 1}/{rounds}: {name}: {shown}", flush=True)
    return result


def interleaved(
    measures: Mapping[str, Callable[[], Mapping[str, float]]], rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Measure all in each round, each round beginning with another one; for within one process.

    Returns:
        by name, for each metric a sample of every round.
    """
    names = list(measures)
    found: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            for key, value in measures[name]().items():
                found[name].setdefault(key, []).append(value)
    return found


def cpu_microseconds(call: Callable[[], object], count: int) -> dict[str, float]:
    """Call so many times; return this process's CPU time of one call, and calls a second."""
    gc.collect()
    started, used = perf_counter(), process_time()
    for _ in range(count):
        call()
    used, elapsed = process_time() - used, perf_counter() - started
    return {"cpu": used / count * 1e6, "rate": count / elapsed}


def wanted(name: str, only: Sequence[str]) -> bool:
    """Whether ``name`` has all words of one of ``only``; yes if there is none."""
    return not only or any(
        all(word in name.lower() for word in text.lower().replace(",", " ").split())
        for text in only
    )
