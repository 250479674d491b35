"""Pure: families of metrics in Prometheus' text format 0.0.4, filled in by one `%`.

What the lines say beside their numbers is put together once and used again for as long as the same
numbers of the same rows are known. To render is then to fill in a template: a twentieth of what
putting each line together takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, compress, groupby, repeat
from operator import attrgetter, is_not
from typing import Any, Literal

from gpud.histogram import Histogram

Number = int | float | None
Row = Sequence[Number]
_family = attrgetter("family")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One metric. `help` is one line."""

    name: str
    help: str
    kind: Literal["counter", "gauge", "histogram"] = "gauge"

    def head(self) -> str:
        """Its HELP and TYPE lines."""
        return f"# HELP {self.name} {self.help}\n# TYPE {self.name} {self.kind}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """Where a value of a row goes. Columns of one family stand side by side.

    `labels` is what they have beside those of the row, as `reason="idle"`; `form` is how a number
    is written, as `%d000000` for MHz in hertz; `suffix` follows the name, as `_bucket`.
    """

    family: Family
    labels: str = ""
    form: str = "%s"
    suffix: str = ""


def gauge(name: str, help_: str, *, form: str = "%s", labels: str = "") -> Column:
    """A column that is a family of its own, of what goes up and down."""
    return Column(family=Family(name=name, help=help_), form=form, labels=labels)


def counter(name: str, help_: str) -> Column:
    """A column that is a family of its own, of what only grows."""
    return Column(family=Family(name=name, help=help_, kind="counter"))


def histogram(name: str, help_: str, bounds: Sequence[float]) -> tuple[Column, ...]:
    """Columns for what `spans` gives of a Histogram with these bounds."""
    family = Family(name=name, help=help_, kind="histogram")
    return (
        *(Column(family=family, suffix="_bucket", labels=f'le="{each:g}"') for each in bounds),
        Column(family=family, suffix="_bucket", labels='le="+Inf"'),
        Column(family=family, suffix="_sum"),
        Column(family=family, suffix="_count"),
    )


def spans(value: Histogram) -> Row:
    """A row, or a part of one, for the columns of `histogram`."""
    counts = value.cumulative()
    return (*counts, value.total_seconds, counts[-1])


class Table:
    """Columns, for rows with labels of their own (devices, instances).

    While no number changes the same text is given out: what rarely moves and what always does
    belong into tables apart.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = tuple(columns)
        self._labels: tuple[str, ...] = ()
        self._numbers: tuple[Number, ...] = ()
        self._known: list[bool] = []
        self._template = self._page = ""

    def render(self, labels: tuple[str, ...], rows: Sequence[Row]) -> str:
        """All that is known of the rows; a family of which nothing is known is left out.

        `labels` are those of each row, as `device="gpu0",uuid="GPU-1"`, see `labelled`.
        """
        numbers = tuple(chain.from_iterable(zip(*rows, strict=True)))
        if numbers == self._numbers and labels == self._labels:
            return self._page
        known = list(map(is_not, numbers, repeat(None)))
        if known != self._known or labels != self._labels:
            self._template = self._made(labels, known)
            self._labels, self._known = labels, known
        self._numbers = numbers
        self._page = self._template % tuple(compress(numbers, known))
        return self._page

    def _made(self, labels: tuple[str, ...], known: list[bool]) -> str:
        """The page with a place for each number."""
        parts: list[str] = []
        at = iter(known)
        for family, columns in groupby(self._columns, _family):
            lines = [line for each in columns for line in _lines(each, labels, at)]
            if lines:
                parts += (_escaped(family.head()), *lines)
        return "".join(parts)


def _lines(column: Column, labels: tuple[str, ...], known: Iterator[bool]) -> Iterator[str]:
    for each in labels:
        if next(known):
            told = ",".join(filter(None, (each, column.labels)))
            braced = f"{{{told}}}" if told else ""
            yield f"{_escaped(column.family.name + column.suffix + braced)} {column.form}\n"


def labelled(**labels: object) -> str:
    """Labels as they stand in a line; those without a value are left out."""
    return ",".join(f'{name}="{_quoted(str(value))}"' for name, value in labels.items() if value)


class Labels:
    """Labels of subjects, put together again only when these are others than the last time."""

    def __init__(self, label: Callable[[Any], str]) -> None:
        self._label = label
        self._subjects: tuple[object, ...] = ()
        self._labels: tuple[str, ...] = ()

    def of(self, subjects: tuple[Any, ...]) -> tuple[str, ...]:
        """One for each. The same objects are told apart from others without a look inside."""
        if subjects != self._subjects:
            self._labels = tuple(map(self._label, subjects))
            self._subjects = subjects
        return self._labels


def _quoted(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _escaped(text: str) -> str:
    """As it has to stand in a template."""
    return text.replace("%", "%%")
