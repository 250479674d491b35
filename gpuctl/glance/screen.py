"""Pure: what a screen holds of lines that are told in parts."""

from __future__ import annotations

from collections.abc import Sequence


def shortened(lines: Sequence[str], room: int, least: int, more: str) -> list[str]:
    """Not more than `room` of them, though `least` in any case.

    Where that is not all, the last says `and 3 more` and where they are: `more`.
    """
    room = max(room, least)
    if len(lines) <= room:
        return list(lines)
    left_out = len(lines) - (room - 1)
    return [*lines[: room - 1], f"and {left_out} more: {more}"]


def spaced(parts: Sequence[list[str]], rows: int | None) -> list[str]:
    """With blank lines between, as far as `rows` go: the first and the last longest. None: all."""
    lines = [line for part in parts for line in part]
    gaps = sorted(range(1, len(parts)), key=lambda at: (at != 1, -at))
    if rows is not None:
        gaps = gaps[: max(0, rows - len(lines))]
    for at in sorted(gaps, reverse=True):
        lines.insert(sum(map(len, parts[:at])), "")
    return lines
