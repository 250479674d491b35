"""How far a download is, over all of its files, and how fast it gets on."""

from __future__ import annotations

from typing import Final

from gpud.models.sources.jobs import Control, Step

# A rate over less says more of the network's buffers than of its speed.
RATE_SECONDS: Final = 2.0


class Progress:
    """Counts for one job, in its thread."""

    def __init__(self, control: Control, words: str) -> None:
        self._control = control
        self._words = words
        self._before = 0  # of files that are done
        self._rate: float | None = None
        self._since: tuple[float, int] | None = None
        self.total_bytes: int | None = None

    def begin(self, words: str) -> None:
        """Say what is done first, before anything has come."""
        self._control.tell(Step(words=words), always=True)

    def file(self, done_bytes: int, total_bytes: int | None) -> None:
        """So much of the present file is here."""
        done, now = self._before + done_bytes, self._control.clock.now().boottime
        first = self._since is None
        if self._since is None or done < self._since[1]:
            self._since = (now, done)
        elif now - self._since[0] >= RATE_SECONDS:
            self._rate = (done - self._since[1]) / (now - self._since[0])
            self._since = (now, done)
        total = self.total_bytes if self.total_bytes is not None else total_bytes
        self._control.tell(
            Step(
                words=self._words,
                done_bytes=done,
                total_bytes=total,
                bytes_per_second=self._rate,
            ),
            always=first,
        )

    def end_file(self, size_bytes: int) -> None:
        """The present file is here; what comes next is another."""
        self._before += size_bytes
