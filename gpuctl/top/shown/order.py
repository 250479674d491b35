"""Pure: which rows of a list are shown, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gpuctl.top.shown.field import Field, Key, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """By which column; "" is gpud's own order. A number begins with its greatest."""

    header: str = ""
    is_reversed: bool = False

    def next_of(self, headers: Sequence[str]) -> Order:
        """By the column after this one, and after the last in gpud's own order."""
        known = ["", *headers]
        at = known.index(self.header) if self.header in known else 0
        return Order(header=known[(at + 1) % len(known)])

    def turned(self) -> Order:
        """The other way round."""
        return replace(self, is_reversed=not self.is_reversed)


def ordered(rows: Sequence[Row], fields: Sequence[Field[Row]], order: Order) -> list[Row]:
    """What is unknown stands last, whichever way round."""
    field = next((each for each in fields if each.header == order.header), None)
    if field is None:
        return list(reversed(rows)) if order.is_reversed else list(rows)
    unknown = [row for row in rows if field.key(row) is None]
    there = [row for row in rows if field.key(row) is not None]
    is_text = any(isinstance(field.key(row), str) for row in there)
    falling = is_text == order.is_reversed
    return [*sorted(there, key=_sortable(field.key), reverse=falling), *unknown]


def _sortable(key: Callable[[Row], Key]) -> Callable[[Row], tuple[float, str]]:
    def told(row: Row) -> tuple[float, str]:
        value = key(row)
        return (0.0, value) if isinstance(value, str) else (value or 0.0, "")

    return told


def matching(rows: Sequence[Row], text: Callable[[Row], str], wanted: str) -> list[Row]:
    """Those whose text has every word of `wanted`, in whatever case."""
    words = wanted.lower().split()
    return [row for row in rows if all(word in text(row).lower() for word in words)]
