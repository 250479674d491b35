"""Pure: the last minutes of each subject, in memory.

What came in is kept as rows until its block of half a minute is over, then as that block's bytes:
of a busy card some 65 bytes a second for all its 40 fields, of an idle one a tenth of that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from gpud.telemetry.history.blocks import (
    FINE,
    SPANS,
    Block,
    Row,
    encoded,
    of_rows,
    rolled,
    start_of,
)

# subject, beginning, bytes
Packed: TypeAlias = tuple[str, int, bytes]
# Rows that are kept before those of a second are made into one step.
_MOST_ROWS = 64
# A clock that was set back by less still shows the newest step.
_SLACK_SECONDS = 2


@dataclass(slots=True)
class _Track:
    """One subject."""

    numbers: Sequence[int]
    blocks: deque[tuple[int, bytes]] = field(default_factory=deque)
    rows: list[tuple[int, Row]] = field(default_factory=list)
    folded: list[Block] = field(default_factory=list)  # rows that came faster than steps do

    def take(self, time: int, row: Row) -> None:
        if len(self.rows) >= _MOST_ROWS and self.rows[-1][0] != time:
            self.folded.append(of_rows(FINE, self.numbers, self.rows))
            self.rows = []
        self.rows.append((time, row))

    def open_block(self) -> Block | None:
        parts = [*self.folded]
        if self.rows:
            parts.append(of_rows(FINE, self.numbers, self.rows))
        if len(parts) > 1:
            return rolled(parts, FINE)
        return parts[0] if parts else None

    def close(self) -> bytes | None:
        block = self.open_block()
        self.rows, self.folded = [], []
        return encoded(block) if block is not None and block.columns else None


class Ring:
    """Keeps `seconds` of all subjects. Moments are wall seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._tracks: dict[str, _Track] = {}
        self._open = 0  # the beginning of the block that is open
        self.newest = 0  # the step that was begun last

    def is_over(self, wall: float) -> bool:
        """Whether the open block has no such moment: it is to be closed."""
        return start_of(FINE, wall) != self._open

    def turn(self, wall: float) -> tuple[int, list[Packed]]:
        """The step that a moment lies in, and the blocks that ended before it.

        Where the clock was set back, what was seen later than it now says is forgotten here.
        """
        time, closed = int(wall), []
        if self.newest - _SLACK_SECONDS <= time < self.newest:
            time = self.newest
        if self.newest and start_of(FINE, time) != self._open:
            closed = self.close()
        if time < self.newest:
            closed = closed or self.close()
            self._forget_from(time)
        self.newest, self._open = time, start_of(FINE, time)
        return time, closed

    def put(self, subject: str, numbers: Sequence[int], time: int, row: Row) -> None:
        """What a subject showed in the step that `turn` told; `numbers` are of its fields."""
        track = self._tracks.get(subject)
        if track is None:
            track = self._tracks[subject] = _Track(numbers)
        track.take(time, row)

    def close(self) -> list[Packed]:
        """End the open block: its bytes, by subject. What is too old goes."""
        closed = []
        for subject, track in self._tracks.items():
            body = track.close()
            if body is not None:
                track.blocks.append((self._open, body))
                closed.append((subject, self._open, body))
        self._age()
        return closed

    def subjects(self) -> Collection[str]:
        """Those that were seen of late."""
        return self._tracks.keys()

    def packed(self, subject: str) -> Sequence[tuple[int, bytes]]:
        """The blocks that are over: their beginnings and bytes."""
        track = self._tracks.get(subject)
        return tuple(track.blocks) if track is not None else ()

    def unpacked(self, subject: str) -> Block | None:
        """The block that is open."""
        track = self._tracks.get(subject)
        return track.open_block() if track is not None else None

    def oldest(self) -> int | None:
        """When the oldest block that is kept begins."""
        starts = (t.blocks[0][0] if t.blocks else self._open for t in self._tracks.values())
        return min(starts, default=None)

    def size_bytes(self) -> int:
        """Of all blocks that are over."""
        return sum(len(body) for track in self._tracks.values() for _, body in track.blocks)

    def _forget_from(self, time: int) -> None:
        for track in self._tracks.values():
            while track.blocks and track.blocks[-1][0] + SPANS[FINE] > time:
                track.blocks.pop()

    def _age(self) -> None:
        oldest = self.newest - self.seconds
        for subject in list(self._tracks):
            blocks = self._tracks[subject].blocks
            while blocks and blocks[0][0] + SPANS[FINE] <= oldest:
                blocks.popleft()
            if not blocks:
                del self._tracks[subject]
