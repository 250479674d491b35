"""Pure: how many calls and streams are open at once, of all and of one owner, and how often.

Streams and calls are counted apart, and reads apart from what changes anything: a thousand
watchers leave room for a Release, and for the stream that keeps a lease alive. Nor does one owner
take what is there for all, and some of it is for admins alone.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable

import msgspec

from gpud.access.identity import Caller, Role
from gpud.access.refusals import TooManyCalls, TooManyStreams, TooOften

MAX_STREAMS = 1536
MAX_CHANGING_STREAMS = 512
MAX_CALLS = 1024
MAX_CHANGING_CALLS = 512
# One part in so many is the most that one owner may take of each, where no quota says otherwise;
# and what is kept for admins, whom nothing else bounds.
OWNERS_PART = 4
ADMINS_PART = 8
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
    """Places of which so many may be taken, and who has them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self.owners: Counter[str] = Counter()

    def room(self, caller: Caller) -> bool:
        """Whether there is a place, as far as all together go."""
        admin = caller.role is Role.ADMIN
        return self.taken < self.limit - (0 if admin else self.limit // ADMINS_PART)

    def share(self, caller: Caller, quota: int) -> int:
        """How many one owner may have; 0 is no limit of its own."""
        return quota or (0 if caller.role is Role.ADMIN else self.limit // OWNERS_PART)

    def take(self, caller: Caller) -> None:
        self.taken += 1
        self.owners[caller.name] += 1

    def give_back(self, caller: Caller) -> None:
        self.taken -= 1
        self.owners[caller.name] -= 1
        if not self.owners[caller.name]:
            del self.owners[caller.name]


class Budgets:
    """What is open now. `allowance` tells what an owner may have."""

    def __init__(self, allowance: Callable[[str], Allowance]) -> None:
        self._allowance = allowance
        # By whether they change anything.
        self._streams = {False: _Pool(MAX_STREAMS), True: _Pool(MAX_CHANGING_STREAMS)}
        self._calls = {False: _Pool(MAX_CALLS), True: _Pool(MAX_CHANGING_CALLS)}
        self._rates: OrderedDict[str, tuple[float, float]] = OrderedDict()  # (tokens, boottime)

    def configure(self, allowance: Callable[[str], Allowance]) -> None:
        """Allow as much from now on; what is open stays open."""
        self._allowance = allowance

    @property
    def open_streams(self) -> int:
        """How many streams are open."""
        return sum(pool.taken for pool in self._streams.values())

    def open_call(self, caller: Caller, now_boottime: float, *, changing: bool) -> None:
        """Count a call in. Raises TooManyCalls, TooOften."""
        pool, name = self._calls[changing], caller.name
        share = pool.share(caller, 0)
        if share and pool.owners[name] >= share:
            raise TooManyCalls(owner=name, limit=share)
        if not pool.room(caller):
            raise TooManyCalls(owner="", limit=pool.taken)
        allowance = self._allowance(name)
        if allowance.calls_per_second:
            self._draw(name, allowance, now_boottime)
        pool.take(caller)

    def close_call(self, caller: Caller, *, changing: bool) -> None:
        """Count a call out."""
        self._calls[changing].give_back(caller)

    def open_stream(self, caller: Caller, *, changing: bool) -> None:
        """Count a stream in. Raises TooManyStreams."""
        pool, name = self._streams[changing], caller.name
        allowance = self._allowance(name)
        if allowance.streams and self._open_of(name) >= allowance.streams:
            raise TooManyStreams(owner=name, limit=allowance.streams, key=allowance.key)
        share = pool.share(caller, allowance.streams)
        if share and pool.owners[name] >= share:
            raise TooManyStreams(owner=name, limit=share)
        if not pool.room(caller):
            raise TooManyStreams(owner="", limit=pool.taken)
        pool.take(caller)

    def close_stream(self, caller: Caller, *, changing: bool) -> None:
        """Count a stream out."""
        self._streams[changing].give_back(caller)

    def _open_of(self, name: str) -> int:
        return sum(pool.owners[name] for pool in self._streams.values())

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
