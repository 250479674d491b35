"""Pure: plain aligned columns.

Whatever is drawn here may have been written by an engine or by another client, so every cell
passes through `clean`: no text can move the cursor, rename the window or hide a line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC
from itertools import zip_longest
from typing import TYPE_CHECKING, Generic, TypeVar

from gpuctl.units import UNKNOWN

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

Row = TypeVar("Row")

# Escape sequences are dropped whole (CSI, OSC); compiled when first met.
_ESCAPE_SEQUENCE = r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"
# Then every other control character, C1 included, and the marks that reorder text (Unicode TR9)
# and can make one line read as another. Line ends and tabs become spaces.
_REORDERING = (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_CLEANED: dict[int, str] = {
    **dict.fromkeys((*range(0x20), *range(0x7F, 0xA0), *_REORDERING), ""),
    **dict.fromkeys(map(ord, "\n\t"), " "),
}

GAP = "  "  # between two columns
_SHORTEST_SHRUNK = 6
_SHORTEST_WRAPPED = 20
_DROPPED = -1
_TONES = {
    "green": frozenset({"READY", "HEALTHY", "GRANTED"}),
    "red": frozenset(
        {
            "FAILED",
            "LOST",
            "DEGRADED",
            "UNRESPONSIVE",
            "REVOKED",
            "EXPIRED",
            "CRITICAL",
            "HOT",
            "THROTTLING",
        }
    ),
    "yellow": frozenset(
        {
            "RECONCILING",
            "DRAINING",
            "RELEASING",
            "STOPPING",
            "UNKNOWN",
            "BACKOFF",
            "QUEUED",
            "CORDONED",
            "WARM",
            "WARNING",
        }
    ),
}
_ANSI = {"green": "\x1b[32m", "red": "\x1b[31m", "yellow": "\x1b[33m"}


def clean(text: str) -> str:
    """The text without anything a terminal would obey; line ends become spaces."""
    if text.isascii() and text.isprintable():
        return text
    return re.sub(_ESCAPE_SEQUENCE, "", text).translate(_CLEANED)


def clean_line(text: str) -> str:
    """As `clean`, for a line of output: tabs stay."""
    return "\t".join(clean(part) for part in text.split("\t"))


def toned(text: str, tone: str) -> str:
    """The text in a colour: green, red or yellow."""
    return f"{_ANSI[tone]}{text}\x1b[0m"


def paint(text: str) -> str:
    """The text in the colour of the state word it holds."""
    state = text.strip(" 0123456789")  # QUEUED 2 has its place in the queue
    for tone, words in _TONES.items():
        if state in words:
            return toned(text, tone)
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Column(Generic[Row]):
    """One column: how a row's cell reads.

    `wide` columns show with `-o wide` alone. Where a width is to be kept, those that `drop` go
    first, then those that `shrink` are cut, at their beginning where the end says more, and
    sentences that `wrap` go on in lines of their own.
    """

    header: str
    cell: Callable[[Row], str]
    right: bool = False
    wide: bool = False
    shrinks: bool = False
    drops: bool = False
    wraps: bool = False
    keeps_end: bool = False


class Table(Generic[Row]):
    """Aligned columns. Rows drawn later stand under the same headers.

    Widths only grow, and which columns drop is settled when headers are drawn.
    """

    def __init__(
        self,
        columns: Sequence[Column[Row]],
        *,
        wide: bool = False,
        width: int | None = None,
        color: bool = False,
    ) -> None:
        self._columns = [column for column in columns if wide or not column.wide]
        self._width = width
        self._color = color
        self._widths = [len(column.header) for column in self._columns]
        self._dropped: set[int] = set()

    def lines(self, rows: Sequence[Row], *, header: bool = True) -> list[str]:
        """The rows drawn, under the headers unless told otherwise."""
        cells = [[clean(column.cell(row)) or UNKNOWN for column in self._columns] for row in rows]
        for line in cells:
            self._widths = [
                max(old, len(cell)) for old, cell in zip(self._widths, line, strict=True)
            ]
        widths = self._fitted(settled=not header)
        wrapped = (row for line in cells for row in self._wrapped(line, widths))
        drawn = [self._line(row, widths, color=self._color) for row in wrapped]
        if not header:
            return drawn
        return [self._line([c.header for c in self._columns], widths, color=False), *drawn]

    def _fitted(self, *, settled: bool) -> list[int]:
        widths = list(self._widths)
        if self._width is None:
            return widths
        excess = sum(widths) + len(GAP) * (len(widths) - 1) - self._width
        for index, column in enumerate(self._columns):
            drops = index in self._dropped if settled else column.drops and excess > 0
            if drops:
                self._dropped.add(index)
                excess -= widths[index] + len(GAP)
                widths[index] = _DROPPED
        for index, column in enumerate(self._columns):
            if (column.shrinks or column.wraps) and excess > 0:
                least = _SHORTEST_WRAPPED if column.wraps else _SHORTEST_SHRUNK
                shrunk = min(widths[index], max(least, widths[index] - excess))
                excess -= widths[index] - shrunk
                widths[index] = shrunk
        return widths

    def _wrapped(self, cells: list[str], widths: Sequence[int]) -> Iterator[list[str]]:
        """The row, and below it what of its sentences did not fit."""
        rest = [
            column.wraps and len(cell) > width > 0
            for column, cell, width in zip(self._columns, cells, widths, strict=True)
        ]
        if not any(rest):
            yield cells
            return
        import textwrap

        parts = [
            textwrap.wrap(cell, width) if is_long else [cell]
            for cell, width, is_long in zip(cells, widths, rest, strict=True)
        ]
        yield from map(list, zip_longest(*parts, fillvalue=""))

    def _line(self, cells: Sequence[str], widths: Sequence[int], *, color: bool) -> str:
        parts = []
        for column, cell, width in zip(self._columns, cells, widths, strict=True):
            if width == _DROPPED:
                continue
            short = _cut(cell, width, keeps_end=column.keeps_end)
            padded = short.rjust(width) if column.right else short.ljust(width)
            parts.append(paint(padded) if color else padded)
        return GAP.join(parts).rstrip()


def _cut(cell: str, width: int, *, keeps_end: bool) -> str:
    if len(cell) <= width:
        return cell
    return f"…{cell[1 - width :]}" if keeps_end else f"{cell[: width - 1]}…"


def moment_text(moment: Timestamp) -> str:
    """`2026-11-20 21:54:03`, in the reader's own time zone; `-` when it is not set."""
    if not moment.seconds:
        return UNKNOWN
    return f"{moment.ToDatetime(tzinfo=UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def clock_text(moment: Timestamp) -> str:
    """`21:54:03.250`, for lines that come many a second."""
    if not moment.seconds:
        return UNKNOWN
    local = moment.ToDatetime(tzinfo=UTC).astimezone()
    return f"{local:%H:%M:%S}.{local.microsecond // 1000:03d}"
