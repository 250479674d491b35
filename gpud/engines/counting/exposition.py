"""Pure: metrics in Prometheus' text format, read within bounds, whatever a server sends.

The format is https://prometheus.io/docs/instrumenting/exposition_formats/ (text, 0.0.4). What
OpenMetrics adds at the end of a line, a moment or an exemplar, is passed over.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

# vLLM sends some 600 lines (50 kB) for each of its engine cores, llama-server 50.
MOST_LINES: Final = 50_000
MOST_SAMPLES: Final = 10_000  # of the metrics that are wanted
MOST_LINE_CHARACTERS: Final = 16 * 1024  # vLLM's line about its cache has 3 000
MOST_BOUNDS: Final = 512  # of a histogram; vLLM's have 25

# Possessive: no line is read twice, however its quotes and braces stand.
_SAMPLE: Final = re.compile(
    r'([A-Za-z_:][A-Za-z0-9_:]*+)(?:\{((?:[^"{}]|"(?:[^"\\]|\\.)*+")*+)\})?[ \t]++'
    r"([+-]?(?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?)"
    r"(?:[ \t]++-?[0-9]++(?:\.[0-9]++)?)?(?:[ \t]++#.*+)?[ \t\r]*+"
)
_NAME_END: Final = re.compile(r"[{ \t]")
_LABEL: Final = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*+)"')
_ESCAPED: Final = re.compile(r"\\(.)")
_PLAIN: Final = {"n": "\n"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Cumulative counts by their upper bounds, which rise; the last bound is infinity."""

    bounds: tuple[float, ...]
    counts: tuple[float, ...]
    sum: float | None = None

    @property
    def count(self) -> float:
        """Of all that was observed."""
        return self.counts[-1]


@dataclass(frozen=True, slots=True)
class Exposition:
    """The samples of the metrics that were wanted: by name, then by the text of their labels.

    What is no finite number is left out, its metric named in `senseless`. `is_cut`: there was more
    than is read.
    """

    samples: Mapping[str, Mapping[str, float]]
    is_cut: bool = False
    senseless: frozenset[str] = frozenset()

    def __contains__(self, name: str) -> bool:
        return name in self.samples

    def mentions(self, name: str) -> bool:
        """Whether it tells anything of a metric, be it no number."""
        return name in self.samples or name in self.senseless

    def total(self, name: str) -> float | None:
        """Over all series of a metric; None where there is none."""
        series = self.samples.get(name)
        return None if series is None else _finite(sum(series.values()))

    def highest(self, name: str) -> float | None:
        """Of all series of a metric; None where there is none."""
        return max(self.samples.get(name, {}).values(), default=None)

    def labelled(self, name: str) -> list[tuple[dict[str, str], float]]:
        """Each series of a metric, its labels understood."""
        return [(labels(text), value) for text, value in self.samples.get(name, {}).items()]

    def histogram(self, name: str) -> Histogram | None:
        """Of all series of `name` together; None where there is none that makes sense."""
        counts: dict[float, float] = {}
        for marks, value in self.labelled(f"{name}_bucket"):
            bound = _bound(marks.get("le", ""))
            if bound is not None and value >= 0:
                counts[bound] = counts.get(bound, 0.0) + value
        total = self.total(f"{name}_count")
        if total is not None:
            counts.setdefault(math.inf, total)
        if math.inf not in counts or len(counts) > MOST_BOUNDS:
            return None
        bounds = tuple(sorted(counts))
        cumulative = tuple(counts[bound] for bound in bounds)
        if any(after < before for before, after in pairwise(cumulative)):
            return None
        return Histogram(bounds=bounds, counts=cumulative, sum=self.total(f"{name}_sum"))


def read(text: str, wanted: Collection[str]) -> Exposition:
    """The samples of the wanted names. A line that is none is passed over.

    Of a series that comes twice the last counts. It takes time in proportion to the text, and
    more of it only for lines that are wanted.
    """
    found: dict[str, dict[str, float]] = {}
    senseless: set[str] = set()
    lines = text.split("\n", MOST_LINES)
    is_cut, read_ = len(lines) > MOST_LINES, 0
    for line in lines[:MOST_LINES]:
        if not line or line[0] == "#" or _name(line) not in wanted:
            continue
        if read_ == MOST_SAMPLES or len(line) > MOST_LINE_CHARACTERS:
            is_cut = True
            continue
        read_ += 1
        match = _SAMPLE.fullmatch(line)
        value = _finite(float(match[3])) if match is not None else None
        if match is not None and value is not None:
            found.setdefault(match[1], {})[match[2] or ""] = value
        else:
            senseless.add(_name(line))
    return Exposition(found, is_cut, frozenset(senseless))


def of_histograms(*names: str) -> tuple[str, ...]:
    """The metrics that histograms of these names are told by."""
    return tuple(f"{name}_{part}" for name in names for part in ("bucket", "count", "sum"))


def labels(text: str) -> dict[str, str]:
    """The labels within the braces, unescaped."""
    return {
        name: _ESCAPED.sub(lambda match: _PLAIN.get(match[1], match[1]), value)
        for name, value in _LABEL.findall(text)
    }


def _name(line: str) -> str:
    end = _NAME_END.search(line, 0, 256)
    return line[: end.start()] if end is not None else ""


def _bound(text: str) -> float | None:
    if text == "+Inf":
        return math.inf
    try:
        return _finite(float(text))
    except ValueError:
        return None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
