"""Pure: how many calls and streams are open at once, of all and of one owner, and how often.

Streams and calls are counted apart: a thousand watchers leave room for a Release.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable

import msgspec

from gpud.access.refusals import TooManyCalls, TooManyStreams, TooOften

MAX_STREAMS = 1536
MAX_CALLS = 512
# So many owners' rates are followed; who is dropped starts with a full bucket.
MAX_RATES = 1024


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """What one owner may have open and call; 0 is no limit."""

    streams: int = 0
    calls_per_second: float = 0.0


class Budgets:
    """What is open now. `allowance` tells what an owner may have."""

    def __init__(self, allowance: Callable[[str], Allowance]) -> None:
        self._allowance = allowance
        self._streams: Counter[str] = Counter()
        self._stream_count = 0
        self._call_count = 0
        self._rates: OrderedDict[str, tuple[float, float]] = OrderedDict()  # (tokens, boottime)

    def configure(self, allowance: Callable[[str], Allowance]) -> None:
        """Allow as much from now on; what is open stays open."""
        self._allowance = allowance

    @property
    def open_streams(self) -> int:
        """How many streams are open."""
        return self._stream_count

    def open_call(self, name: str, now_boottime: float) -> None:
        """Count a call in. Raises TooManyCalls, TooOften."""
        if self._call_count >= MAX_CALLS:
            raise TooManyCalls(limit=MAX_CALLS)
        rate = self._allowance(name).calls_per_second
        if rate:
            self._draw(name, rate, now_boottime)
        self._call_count += 1

    def close_call(self) -> None:
        """Count a call out."""
        self._call_count -= 1

    def open_stream(self, name: str) -> None:
        """Count a stream in. Raises TooManyStreams."""
        if self._stream_count >= MAX_STREAMS:
            raise TooManyStreams(owner="", limit=MAX_STREAMS)
        limit = self._allowance(name).streams
        if limit and self._streams[name] >= limit:
            raise TooManyStreams(owner=name, limit=limit)
        self._streams[name] += 1
        self._stream_count += 1

    def close_stream(self, name: str) -> None:
        """Count a stream out."""
        self._stream_count -= 1
        self._streams[name] -= 1
        if not self._streams[name]:
            del self._streams[name]

    def _draw(self, name: str, rate: float, now_boottime: float) -> None:
        """Take one from the owner's bucket, which holds a second's worth, one at least."""
        size = max(1.0, rate)
        tokens, since = self._rates.pop(name, (size, now_boottime))
        tokens = min(size, tokens + (now_boottime - since) * rate)
        self._rates[name] = (tokens - 1 if tokens >= 1 else tokens, now_boottime)
        if len(self._rates) > MAX_RATES:
            self._rates.popitem(last=False)
        if tokens < 1:
            raise TooOften(owner=name, limit=rate, wait_seconds=(1 - tokens) / rate)
