"""Devices on which nobody is asked for a token by gpud itself, for as long as one is measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Quiet:
    """Of all devices; devices are UUIDs, instances are ids."""

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()
        self._asked: Counter[str] = Counter()

    def hold(self, devices: Iterable[str]) -> None:
        """From now on no engine on these is probed, until `release`."""
        self._held.update(set(devices))

    def release(self, devices: Iterable[str]) -> None:
        """The same devices may be probed again, as far as nobody else holds them."""
        self._held.subtract(set(devices))

    def is_held(self, devices: Iterable[str]) -> bool:
        """Whether somebody measures on one of these."""
        return any(self._held[each] > 0 for each in devices)

    @contextmanager
    def asking(self, instance: str) -> Iterator[None]:
        """While a request of gpud's own is with an engine."""
        self._asked[instance] += 1
        try:
            yield
        finally:
            self._asked[instance] -= 1

    def is_asked(self, instance: str) -> bool:
        """Whether one is now."""
        return self._asked[instance] > 0
