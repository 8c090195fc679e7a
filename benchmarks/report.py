"""What a run found: as JSON, from which everything can be drawn again, as a table, as a plot."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from math import isnan
from pathlib import Path
from statistics import median
from typing import Any

from .machine import describe, installed


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One thing that is measured."""

    key: str
    title: str
    unit: str
    plotted: bool = True
    log: bool = False  #: drawn on a logarithmic scale


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What was measured of one contender: for each metric a sample of every round."""

    name: str
    against: str | None = None  #: the row that this one is compared with, beside the baseline
    samples: dict[str, list[float]] = field(default_factory=dict)

    def add(self, measured: Mapping[str, float]) -> None:
        for key, value in measured.items():
            if not isnan(value):  # which JSON has not
                self.samples.setdefault(key, []).append(value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """A table of results.

    Ratios are medians of the ratios within each round, for what disturbs one contender of a round
    is likely to disturb the other.
    """

    table: str
    title: str
    metrics: list[Metric]
    rows: list[Row]
    baseline: str | None = None  #: name of the row that the others are compared with
    notes: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)  #: by name of the row
    options: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=describe)
    versions: dict[str, str] = field(default_factory=installed)

    def ratio(self, row: Row, other: str | None, key: str) -> float | None:
        """Return how many times as much as ``other`` this row has, or None where it has not."""
        base = next((base for base in self.rows if base.name == other), None)
        if base is None or key not in base.samples or key not in row.samples:
            return None
        pairs = zip(row.samples[key], base.samples[key])
        ratios = [mine / theirs for mine, theirs in pairs if theirs]
        return median(ratios) if ratios else None

    def text(self) -> str:
        """Return the table with what it was measured on, in Markdown."""
        return "\n".join(
            [
                f"## {self.title}",
                "",
                *self._lines(),
                "",
                *(f"- {note}" for note in self.notes),
                "- " + ", ".join(f"{name} {value}" for name, value in self.options.items()),
                "- {cores} cores of {cpu}, {memory_gib} GiB; {system}; load {load} before".format(
                    **self.machine
                ),
                "- " + ", ".join(f"{name} {value}" for name, value in self.versions.items()),
            ]
        )

    def _lines(self) -> Iterator[str]:
        compared = any(row.against for row in self.rows)
        head = ["contender"]
        for metric in self.metrics:
            if self.baseline:
                head.append(f"× {self.baseline}")
            if compared:
                head.append("× its own baseline" if self.baseline else "× baseline")
            head.append(f"{metric.title} ({metric.unit})")
        yield _line(head)
        yield "|---" * len(head) + "|"
        for row in self.rows:
            cells = [row.name]
            for metric in self.metrics:
                if self.baseline:
                    cells.append(_ratio(self.ratio(row, self.baseline, metric.key)))
                if compared:
                    cells.append(_ratio(self.ratio(row, row.against, metric.key)))
                cells.append(_spread(row.samples.get(metric.key, [])))
            yield _line(cells)
        for name, why in self.failures.items():
            yield ""  # the end of the table
            yield f"FAILED: {name}: {why.splitlines()[0]}"

    def save(self, folder: Path) -> list[Path]:
        """Write JSON, table and plots into ``folder``; return their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        content = folder / f"{self.table}.json"
        content.write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")
        table = folder / f"{self.table}.md"
        table.write_text(self.text() + "\n")
        return [content, table, *self.plot(folder)]

    def plot(self, folder: Path) -> list[Path]:
        """Draw each metric's medians side by side, with the spread; return the paths."""
        try:
            import matplotlib as mpl
        except ImportError:
            print("no plot: matplotlib is not installed")
            return []
        mpl.use("Agg")
        from matplotlib import pyplot

        metrics = [metric for metric in self.metrics if metric.plotted]
        height = 1.2 + 0.32 * len(self.rows)
        figure, all_axes = pyplot.subplots(
            1, len(metrics), figsize=(4 + 4 * len(metrics), height), sharey=True, squeeze=False
        )
        for metric, axes in zip(metrics, all_axes[0]):
            for place, row in enumerate(self.rows):
                samples = row.samples.get(metric.key)
                if samples:
                    middle = median(samples)
                    axes.barh(
                        place,
                        middle,
                        xerr=[[middle - min(samples)], [max(samples) - middle]],
                        color="#0072b2" if row.name.startswith("ours") else "#999999",
                        capsize=3,
                    )
            axes.set_yticks(range(len(self.rows)), [row.name for row in self.rows])
            axes.set_title(f"{metric.title} ({metric.unit})", fontsize=10)
            if metric.log:
                axes.set_xscale("log")
            else:
                axes.set_xlim(left=0)
            axes.spines[["top", "right"]].set_visible(False)
        all_axes[0][0].invert_yaxis()
        figure.suptitle(self.title)
        figure.tight_layout()
        paths = [folder / f"{self.table}.{ending}" for ending in ("png", "svg")]
        for path in paths:
            figure.savefig(path, dpi=150)
        pyplot.close(figure)
        return paths


def load(path: Path) -> Result:
    """Return the result that was saved in a JSON file."""
    content = json.loads(path.read_text())
    content["metrics"] = [Metric(**metric) for metric in content["metrics"]]
    content["rows"] = [Row(**row) for row in content["rows"]]
    return Result(**content)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _spread(samples: list[float]) -> str:
    if not samples:
        return ""
    middle = _number(median(samples))
    if len(samples) == 1:
        return middle
    return f"{middle} ({_number(min(samples))}–{_number(max(samples))})"


def _number(value: float) -> str:
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 4
    return f"{value:,.{digits}f}"
