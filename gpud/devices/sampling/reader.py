"""Asks devices one after another on a thread that is left behind when one does not answer.

And the mark that tells whom, should the driver take the whole process down.
"""

from __future__ import annotations

import mmap
import os
import queue
import threading
from collections.abc import Callable, Sequence, Set
from typing import Protocol

import msgspec

from gpud.devices.sampling.frames import Answer, Unanswered
from gpud.devices.snapshot import DeviceInfo

# Longer than any UUID of a device.
MARK_BYTES = 128


class Ask(Protocol):
    """Asks one device, with its process list or without."""

    def __call__(self, info: DeviceInfo, *, listing: bool) -> Answer:
        """Block for as long as the driver does."""
        ...


class _Round:
    """What one thread is to ask in turn; `position` is whom it is asking."""

    def __init__(self, plan: Sequence[DeviceInfo], *, listing: bool) -> None:
        self.plan = plan
        self.listing = listing
        self.position = 0
        self.is_disowned = False
        # Held until it is over. An Event would be the same, with a dozen calls around it.
        self.going_on = threading.Lock()
        self.going_on.acquire()


class Reader:
    """Asks devices whose calls may not come back, and never waits long for one of them.

    A thread does the asking. When it gets nowhere for `patience_seconds`, it is left with the
    device that it is at, and another goes on with the next; so each device costs at most one
    thread. A late answer is sent as it comes, from whichever thread: `send` must allow that.
    """

    def __init__(
        self, ask: Ask, send: Callable[[Answer | Unanswered], None], patience_seconds: float
    ) -> None:
        self._ask = ask
        self._send = send
        self._patience_seconds = patience_seconds
        # Guards who owns a round, and what is unanswered.
        self._lock = threading.Lock()
        self._unanswered: set[str] = set()
        self._rounds: queue.SimpleQueue[_Round] | None = None

    @property
    def unanswered(self) -> Set[str]:
        """Devices whose call has not come back yet: they must not be asked again."""
        return self._unanswered

    def read(self, plan: Sequence[DeviceInfo], *, listing: bool) -> None:
        """Send an Answer of each, or that it is Unanswered."""
        while plan:
            round_ = _Round(plan, listing=listing)
            self._thread().put(round_)
            plan = self._follow(round_)

    def _follow(self, round_: _Round) -> Sequence[DeviceInfo]:
        """Wait while it gets on; return what is left to ask once it does not."""
        seen = 0
        while not round_.going_on.acquire(timeout=self._patience_seconds):
            with self._lock:
                at = round_.position
                if at > seen or at == len(round_.plan):
                    seen = at
                    continue
                round_.is_disowned = True
                self._rounds = None
                self._unanswered.add(round_.plan[at].uuid)
                self._send(Unanswered(uuid=round_.plan[at].uuid))
            return round_.plan[at + 1 :]
        return ()

    def _thread(self) -> queue.SimpleQueue[_Round]:
        if self._rounds is None:
            self._rounds = queue.SimpleQueue()
            threading.Thread(
                target=self._serve, args=(self._rounds,), name="reader", daemon=True
            ).start()
        return self._rounds

    def _serve(self, rounds: queue.SimpleQueue[_Round]) -> None:
        while True:
            round_ = rounds.get()
            for info in round_.plan:
                answer = self._ask(info, listing=round_.listing)
                with self._lock:
                    if round_.is_disowned:
                        self._unanswered.discard(info.uuid)
                        self._send(msgspec.structs.replace(answer, then=None))
                        return
                    self._send(answer)
                    round_.position += 1
            round_.going_on.release()


class Mark:
    """Whom the sampling process asks just now, in a file in memory that the daemon reads too.

    A frame for each call would tell it as well, but each would wake the daemon.
    """

    def __init__(self, descriptor: int) -> None:
        """Of a file in memory (memfd), made as large as it needs to be."""
        self.descriptor = descriptor
        os.ftruncate(descriptor, MARK_BYTES)
        # Mapped, for it is written twice for each device at each tick.
        self._memory = mmap.mmap(descriptor, MARK_BYTES)
        self._padded: dict[str, bytes] = {}

    def write(self, uuid: str) -> None:
        """Say that a device is asked; "" for none."""
        padded = self._padded.get(uuid)
        if padded is None:
            padded = self._padded[uuid] = uuid.encode().ljust(MARK_BYTES, b"\0")
        self._memory[:] = padded

    def read(self) -> str:
        """What was written last."""
        return self._memory[:].rstrip(b"\0").decode(errors="replace")
