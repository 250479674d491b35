"""Pure: a series in one line of characters."""

from __future__ import annotations

from typing import Final

from gpuctl.plotting.grid import Cells, bounds

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
# For terminals that know no others.
_ASCII: Final = "_.-~=+*#"


def sparkline(values: Cells, *, plain: bool = False) -> str:
    """A character for each value, from the least to the greatest; a blank where there is none."""
    marks, found = (_ASCII if plain else _BLOCKS), bounds(values)
    if found is None:
        return " " * len(values)
    least, most = found
    # What hardly moves is drawn as a line, not as its noise.
    span = max(most - least, abs(most) * 0.01)
    return "".join(
        " "
        if value is None
        else marks[min(len(marks) - 1, int((value - least) / span * len(marks)) if span else 0)]
        for value in values
    )
