"""What is decided about devices beside what they show: dealt with, gone for good, kept known."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gpud.clock import Clock
from gpud.devices.sampling.board import Board
from gpud.devices.verdict.tally import Open


class Dealings:
    """The one way to the board for those who do not sample; devices go by their UUIDs."""

    def __init__(self, board: Board, clock: Clock) -> None:
        self._board = board
        self._clock = clock

    def settle(self, uuid: str) -> None:
        """Somebody dealt with a device: errors that it reported so far count no more."""
        self._board.settle(uuid, self._clock.now())

    def dismiss(self, uuid: str) -> None:
        """Nobody waits for a device that is LOST; nothing for one that is not.

        It is dropped by the next `forget_vanished` after its driver has ceased to list it, unless
        it is back by then, or carries a promise.
        """
        self._board.dismiss(uuid, self._clock.now())

    def forget_vanished(self, is_promised: Callable[[str], bool]) -> None:
        """Show no longer what vanished, is not waited for and carries no promise."""
        self._board.forget(is_promised, self._clock.now())

    def open_xids(self, uuid: str) -> Mapping[int, Open]:
        """The errors that speak against it, by number."""
        return self._board.tally.still_open(uuid)

    def restore_xids(self, uuid: str, xids: Mapping[int, Open]) -> None:
        """Such as an earlier life of the daemon knew of, in this boot: before anything is read."""
        self._board.tally.restore(uuid, xids)
