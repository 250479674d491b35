"""Pure: how many calls and streams are open at once, of all and of one owner, and how often.

Streams and calls are counted apart, and reads apart from what changes anything: a thousand
watchers leave room for a Release, and for the stream that keeps a lease alive.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable

import msgspec

from gpud.access.identity import Caller, Proof
from gpud.access.refusals import TooManyCalls, TooManyStreams, TooOften

MAX_STREAMS = 1536
MAX_CHANGING_STREAMS = 512
MAX_CALLS = 512
MAX_CHANGING_CALLS = 256
# Of the streams that read, those of callers whom nobody knows.
MAX_ANONYMOUS_STREAMS = 512
# So many owners' rates are followed; who is dropped starts with a full bucket.
MAX_RATES = 1024


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """What one owner may have open and call; 0 is no limit.

    `key` is the table of the configuration that says so.
    """

    key: str = ""
    streams: int = 0
    calls_per_second: float = 0.0


class _Pool:
    """Places of which so many may be taken."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0

    @property
    def full(self) -> bool:
        return self.taken >= self.limit


class Budgets:
    """What is open now. `allowance` tells what an owner may have."""

    def __init__(self, allowance: Callable[[str], Allowance]) -> None:
        self._allowance = allowance
        self._owned: Counter[str] = Counter()
        # By whether they change anything.
        self._streams = {False: _Pool(MAX_STREAMS), True: _Pool(MAX_CHANGING_STREAMS)}
        self._calls = {False: _Pool(MAX_CALLS), True: _Pool(MAX_CHANGING_CALLS)}
        self._anonymous = _Pool(MAX_ANONYMOUS_STREAMS)
        self._rates: OrderedDict[str, tuple[float, float]] = OrderedDict()  # (tokens, boottime)

    def configure(self, allowance: Callable[[str], Allowance]) -> None:
        """Allow as much from now on; what is open stays open."""
        self._allowance = allowance

    @property
    def open_streams(self) -> int:
        """How many streams are open."""
        return sum(pool.taken for pool in self._streams.values())

    def open_call(self, name: str, now_boottime: float, *, changing: bool) -> None:
        """Count a call in. Raises TooManyCalls, TooOften."""
        pool = self._calls[changing]
        if pool.full:
            raise TooManyCalls(limit=pool.limit)
        allowance = self._allowance(name)
        if allowance.calls_per_second:
            self._draw(name, allowance, now_boottime)
        pool.taken += 1

    def close_call(self, *, changing: bool) -> None:
        """Count a call out."""
        self._calls[changing].taken -= 1

    def open_stream(self, caller: Caller, *, changing: bool) -> None:
        """Count a stream in. Raises TooManyStreams."""
        pools, name = self._pools(caller, changing=changing), caller.name
        full = next((pool for pool in pools if pool.full), None)
        if full is not None:
            raise TooManyStreams(owner="", limit=full.limit)
        allowance = self._allowance(name)
        limit = allowance.streams
        if limit and self._owned[name] >= limit:
            raise TooManyStreams(owner=name, limit=limit, key=allowance.key)
        self._owned[name] += 1
        for pool in pools:
            pool.taken += 1

    def close_stream(self, caller: Caller, *, changing: bool) -> None:
        """Count a stream out."""
        for pool in self._pools(caller, changing=changing):
            pool.taken -= 1
        self._owned[caller.name] -= 1
        if not self._owned[caller.name]:
            del self._owned[caller.name]

    def _pools(self, caller: Caller, *, changing: bool) -> tuple[_Pool, ...]:
        pool = self._streams[changing]
        return (pool, self._anonymous) if caller.proof is Proof.NOTHING else (pool,)

    def _draw(self, name: str, allowance: Allowance, now_boottime: float) -> None:
        """Take one from the owner's bucket, which holds a second's worth, one at least."""
        rate = allowance.calls_per_second
        size = max(1.0, rate)
        tokens, since = self._rates.pop(name, (size, now_boottime))
        tokens = min(size, tokens + (now_boottime - since) * rate)
        self._rates[name] = (tokens - 1 if tokens >= 1 else tokens, now_boottime)
        if len(self._rates) > MAX_RATES:
            self._rates.popitem(last=False)
        if tokens < 1:
            wait_seconds = (1 - tokens) / rate
            raise TooOften(owner=name, limit=rate, wait_seconds=wait_seconds, key=allowance.key)
