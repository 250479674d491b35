"""Pure: the columns of a list on the screen, and how they share its width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeAlias, TypeVar

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
# On the screen what is unknown is a dash of its own, so that it is no minus.
DASH: Final = "–"

_GOOD = {"READY", "HEALTHY", "GRANTED", "NORMAL", "LOW", "BUSY", "IDLE"}
_BAD = {
    "FAILED", "LOST", "DEGRADED", "UNRESPONSIVE", "REVOKED", "EXPIRED", "CRITICAL", "HOT", "STUCK",
}  # fmt: skip


def cell(text: str, tone: str = "") -> Cell:
    """A cell of one tone; what is unknown as a dash, dimmed."""
    return ((DASH, "dim"),) if text in {"", UNKNOWN} else ((text, tone),)


def state_cell(text: str) -> Cell:
    """A state word in the tone of how it stands."""
    words = set(text.split())
    tone = "bad" if words & _BAD else "good" if words & _GOOD else "warn"
    return cell(text, tone)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field(Generic[Row]):
    """A column. `rank`: where the width does not do for all, the highest go first; 0 never.

    `grows`: how many characters more it may take of what is left over.
    """

    header: str
    cell: Callable[[Row, int], Cell]  # the row, and how wide it is drawn
    key: Callable[[Row], Key]
    width: int
    grows: int = 0
    right: bool = False
    rank: int = 0


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


def fitted(fields: Sequence[Field[Row]], width: int) -> Fitted[Row]:
    """The fields that `width` has room for, in their order, each with its own width.

    It depends on nothing else, so that columns stand still while their content changes.
    """
    kept = list(fields)
    while _least(kept) > width and any(field.rank for field in kept):
        kept.remove(max(kept, key=lambda field: field.rank))
    left = max(0, width - _least(kept))
    widths = {field.header: field.width for field in kept}
    growing = [field for field in kept if field.grows]
    while left and growing:
        for field in list(growing):
            if left:
                widths[field.header] += 1
                left -= 1
            if widths[field.header] >= field.width + field.grows:
                growing.remove(field)
    return tuple((field, widths[field.header]) for field in kept)


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
