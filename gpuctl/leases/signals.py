"""Signals as messages, with who sent them: the terminal, which tells the child too, or a process.

A handler is not told the sender, but sigwaitinfo(2) is. So the signals are blocked in every thread
and one thread waits for them; the child starts with the mask that gpuctl was started with.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

from gpuctl.leases.streams import Inbox

# si_code of what the kernel itself sends, as the terminal's driver does at Ctrl-C (signal(7)).
_SI_KERNEL = 0x80

# These end what has not begun, and so does SIGQUIT where it is caught. A command that runs gets
# them all.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GIVING_UP = (*ENDING, signal.SIGQUIT)
FORWARDED = (*GIVING_UP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caught:
    """A signal. `by_terminal`: the whole foreground group got it, the child included."""

    number: signal.Signals
    by_terminal: bool


class Mask:
    """The signals that are caught."""

    def __init__(self, former: set[int]) -> None:
        self._former = former

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """For as long as the block lasts, this thread's mask is the one gpuctl was started with.

        A child inherits it.
        """
        ours = signal.pthread_sigmask(signal.SIG_SETMASK, self._former)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, ours)


@contextmanager
def caught(inbox: Inbox, numbers: Sequence[signal.Signals]) -> Iterator[Mask]:
    """Post these signals, rather than end by them. Enter it before the first connection is made.

    What was ignored, as by nohup, stays ignored.
    """

    def handler(number: int, _frame: FrameType | None) -> None:
        # Only while the mask is lifted, or in a thread that is older than the block.
        known = signal.Signals(number)
        from_keys = known in {signal.SIGINT, signal.SIGQUIT} and _in_foreground()
        inbox.put(Caught(number=known, by_terminal=from_keys))

    heeded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    former = {number: signal.signal(number, handler) for number in heeded}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, heeded)
    done = threading.Event()
    thread = threading.Thread(target=_post, args=(inbox, heeded, done), daemon=True)
    thread.start()
    try:
        yield Mask({int(number) for number in mask})
    finally:
        done.set()
        if heeded and thread.ident is not None:
            signal.pthread_kill(thread.ident, heeded[0])
        thread.join()
        for number, handled in former.items():
            signal.signal(number, handled)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _post(inbox: Inbox, heeded: Sequence[signal.Signals], done: threading.Event) -> None:
    while heeded:
        told = signal.sigwaitinfo(heeded)
        if done.is_set():
            return
        by_terminal = told.si_code == _SI_KERNEL
        inbox.put(Caught(number=signal.Signals(told.si_signo), by_terminal=by_terminal))


def _in_foreground() -> bool:
    """Whether keys that are pressed reach this process's group."""
    with suppress(OSError):
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
        try:
            return os.tcgetpgrp(terminal) == os.getpgrp()
        finally:
            os.close(terminal)
    return False
