"""Pure: a series as a plot of braille characters: each holds two columns of four dots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from gpuctl.plotting.grid import Cells, bounds

COLUMNS: Final = 2  # of dots, a character
_ROWS: Final = 4
_BLANK: Final = 0x2800
# Unicode's dots of the left and of the right column, from the top down.
_DOTS: Final = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))


def plot(
    values: Cells, height: int, text: Callable[[float], str], *, plain: bool = False
) -> Iterator[str]:
    """Lines with the greatest and the least value beside them; `values` has two for a character.

    A column without a value stays blank. `plain`: a `*` for each character, of one value.
    """
    found = bounds(values)
    if found is None:
        return
    least, most = found
    labels = _labels(height, text(most), text(least))
    if most == least:
        labels = _labels(height, "", text(most))
        labels.insert(height // 2 - 1, labels.pop())
        least, most = least - 1, most + 1
    rows = height * _ROWS
    dots = [
        None if value is None else rows - 1 - round((value - least) / (most - least) * (rows - 1))
        for value in values
    ]
    for label, line in zip(labels, _drawn(dots, height), strict=True):
        shown = "".join("*" if char != chr(_BLANK) else " " for char in line) if plain else line
        yield f"{label} {'|' if plain else '┤'}{shown.replace(chr(_BLANK), ' ').rstrip()}"


def _labels(height: int, most: str, least: str) -> list[str]:
    labels = [most, *[""] * (height - 2), least][:height]
    width = max(map(len, labels))
    return [label.rjust(width) for label in labels]


def _drawn(dots: Sequence[int | None], height: int) -> list[str]:
    """Dots, each joined to the one before it by a vertical line."""
    width = (len(dots) + COLUMNS - 1) // COLUMNS
    grid = [[_BLANK] * width for _ in range(height)]
    before: int | None = None
    for x, dot in enumerate(dots):
        if dot is not None:
            begin = dot if before is None else before + (dot > before) - (dot < before)
            for y in range(min(begin, dot), max(begin, dot) + 1):
                grid[y // _ROWS][x // COLUMNS] |= _DOTS[x % COLUMNS][y % _ROWS]
        before = dot
    return ["".join(map(chr, row)) for row in grid]
