"""Pure: how often each method was called, how the calls ended, and how long they took."""

from __future__ import annotations

from collections import Counter

from gpud.histogram import Histogram

# Up to what a person waits for; a durable answer takes some milliseconds.
BOUNDS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class MethodCalls:
    """Of one method; `kind` is unary or server_stream, as the rest of the world calls it."""

    __slots__ = ("codes", "kind", "method", "seconds", "service")

    def __init__(self, name: str, kind: str) -> None:
        self.service, _, self.method = name.rpartition("/")
        self.kind = kind
        self.codes: Counter[str] = Counter()
        self.seconds = Histogram(BOUNDS_SECONDS)

    def ended(self, code: str, seconds: float) -> None:
        """A call ended, with this code (as `OK`), after so many seconds."""
        self.codes[code] += 1
        self.seconds.observe(seconds)


class Calls:
    """All methods that are served, over all listeners."""

    def __init__(self) -> None:
        self._methods: dict[str, MethodCalls] = {}

    def of(self, name: str, kind: str) -> MethodCalls:
        """The one of "service/Method"; the same for all who ask."""
        return self._methods.setdefault(name, MethodCalls(name, kind))

    def called(self) -> list[MethodCalls]:
        """Those that were called."""
        return [each for _, each in sorted(self._methods.items()) if each.codes]
