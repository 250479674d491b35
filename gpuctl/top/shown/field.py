"""Pure: cells on the screen: the columns of a list, and how they share its width."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeAlias, TypeVar

from rich.cells import cell_len, chop_cells, set_cell_size

from gpuctl.units import UNKNOWN

Row = TypeVar("Row")

# Stretches of text, each with a tone of TONES, or none.
Cell: TypeAlias = tuple[tuple[str, str], ...]
# What a list is sorted by; None, unknown, comes last.
Key: TypeAlias = float | str | None

TONES: Final = (
    "", "good", "warn", "bad", "dim", "strong", "sorted", "own", "promised", "foreign",
)  # fmt: skip
GAP: Final = 2

_GOOD = {"READY", "HEALTHY", "GRANTED", "NORMAL", "LOW", "BUSY", "IDLE"}
_BAD = {
    "FAILED", "LOST", "DEGRADED", "UNRESPONSIVE", "REVOKED", "EXPIRED", "CRITICAL", "HOT", "STUCK",
}  # fmt: skip


def cell(text: str, tone: str = "") -> Cell:
    """A cell of one tone; what is unknown as a dash, dimmed."""
    return ((UNKNOWN, "dim"),) if text in {"", UNKNOWN} else ((text, tone),)


def state_cell(text: str) -> Cell:
    """A state word in the tone of how it stands."""
    words = set(text.split())
    tone = "bad" if words & _BAD else "good" if words & _GOOD else "warn"
    return cell(text, tone)


def percent_text(value: float | None) -> str:
    """A whole number of percent; `-` while it is unknown."""
    return UNKNOWN if value is None else f"{value:.0f}%"


def shortened(text: str, width: int) -> str:
    """In no more columns of a terminal than `width`, with `…` where something is missing."""
    if cell_len(text) <= width:
        return text
    return f"{set_cell_size(text, max(0, width - 1)).rstrip()}…"


def wrapped(line: Cell, width: int, indent: int) -> Iterator[Cell]:
    """Over as many lines as it needs; those after the first begin with so many blanks."""
    told: list[tuple[str, str]] = []
    taken = 0
    for text, tone in _words(line, max(1, width - indent)):
        fits = taken + cell_len(text) <= width
        if not fits and text.isspace():
            taken = width  # the end of a line is as good as a blank
            continue
        if not fits and told:
            yield tuple(told)
            told, taken = [(" " * indent, "")], indent
        told.append((text, tone))
        taken += cell_len(text)
    yield tuple(told)


def _words(line: Cell, width: int) -> Iterator[tuple[str, str]]:
    """And the blanks between them; what is longer than a line in pieces."""
    for text, tone in line:
        for part in re.findall(r"\s+|\S+", text):
            for piece in chop_cells(part, width):
                yield piece, tone


@dataclass(frozen=True, slots=True, kw_only=True)
class Field(Generic[Row]):
    """A column. `rank`: where the width does not do for all, the highest go first; 0 never.

    `grows`: how many characters more it may take of what is left over. `least`: how narrow it may
    become where those that stay have no room; 0: not narrower.
    """

    header: str
    cell: Callable[[Row, int], Cell]  # the row, and how wide it is drawn
    key: Callable[[Row], Key]
    width: int
    grows: int = 0
    right: bool = False
    rank: int = 0
    least: int = 0


Fitted: TypeAlias = tuple[tuple[Field[Row], int], ...]


def text_field(header: str, text: Callable[[Row], str], width: int, **more: object) -> Field[Row]:
    """A column of plain text, sorted by it."""
    return Field(
        header=header,
        cell=lambda row, _: cell(text(row)),
        key=lambda row: text(row).lower(),
        width=width,
        **more,  # type: ignore[arg-type]
    )


def number_field(
    header: str, text: Callable[[Row], str], key: Callable[[Row], Key], width: int, **more: object
) -> Field[Row]:
    """A column of numbers, one under the other, sorted by `key`."""
    return Field(
        header=header,
        cell=lambda row, _: cell(text(row)),
        key=key,
        width=width,
        right=True,
        **more,  # type: ignore[arg-type]
    )


def fitted(fields: Sequence[Field[Row]], width: int) -> Fitted[Row]:
    """The fields that `width` has room for, in their order, each with its own width.

    It depends on nothing else, so that columns stand still while their content changes.
    """
    kept = list(fields)
    while _least(kept) > width and any(field.rank for field in kept):
        kept.remove(max(kept, key=lambda field: field.rank))
    left = width - _least(kept)
    widths = {field.header: field.width for field in kept}
    for _ in range(-left):
        if widest := _widest([field for field in kept if field.least], widths):
            widths[widest.header] -= 1
    growing = [field for field in kept if field.grows]
    while left > 0 and growing:
        for field in list(growing):
            if left > 0:
                widths[field.header] += 1
                left -= 1
            if widths[field.header] >= field.width + field.grows:
                growing.remove(field)
    return tuple((field, widths[field.header]) for field in kept)


def _widest(fields: Sequence[Field[Row]], widths: dict[str, int]) -> Field[Row] | None:
    """Which of them is the widest beyond its least; None: none is."""
    over = {field: widths[field.header] - field.least for field in fields}
    found = max(over, key=lambda field: over[field], default=None)
    return found if found is not None and over[found] > 0 else None


def _least(fields: Sequence[Field[Row]]) -> int:
    return sum(field.width for field in fields) + GAP * (len(fields) - 1)


@dataclass(frozen=True, slots=True)
class Head:
    """A column's header as it is drawn."""

    text: str
    width: int
    right: bool = False
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A row as it is drawn: by what it is known again, and its cells."""

    key: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A list as it is drawn; `empty` stands where it has no rows."""

    heads: tuple[Head, ...] = ()
    lines: tuple[Line, ...] = ()
    empty: str = ""
