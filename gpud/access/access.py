"""Who is let in now: what is known of callers, what is denied, what they have open."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import structlog

from gpud.access.audit import Audit, AuditEntry, event_of
from gpud.access.auditing.calls import Calls
from gpud.access.auditing.restraint import Refusal, Restraint
from gpud.access.budgets import Allowance, Budgets
from gpud.access.certificates import PeerCertificate, peer
from gpud.access.denied import Denied
from gpud.access.doors import Door, Registry, Shown, identify, is_denied, still_known
from gpud.access.identity import Caller, Role
from gpud.access.mint import Mint
from gpud.access.refusals import AccessWithdrawn, RequestLate
from gpud.access.rights import known_method
from gpud.access.tokens import Configured, Minted, Recent, Tokens
from gpud.clock import Clock
from gpud.config import toml_key
from gpud.events import Event
from gpud.settings import Config

log = structlog.get_logger()

# How long the one message of a call may take to come. It follows its headers at once.
MESSAGE_SECONDS = 5.0
# The section of [quotas] for owners without one of their own.
DEFAULT_QUOTA = "default"


class OpenStream:
    """A stream while it is open: whose it is, and how it is cut.

    What gRPC sends is not interrupted: its caller would be told nothing, ever. The stream ends
    itself right after; one whose client takes no more is ended at the second look.
    """

    def __init__(self, caller: Caller, shown: Shown, task: asyncio.Task[object] | None) -> None:
        self.caller = caller
        self.shown = shown
        self.is_cut = False
        self._task = task
        self._sending = False
        self._is_overdue = False

    def send(self) -> None:
        """A message is handed to gRPC."""
        self._sending = True

    def sent(self) -> None:
        """It was taken. Raises AccessWithdrawn where the stream was cut meanwhile."""
        self._sending = False
        if self.is_cut:
            raise AccessWithdrawn(caller=self.caller.name)

    def cut(self) -> None:
        """End it: its caller is denied."""
        self.is_cut = True
        if not self._sending and self._task is not None:
            self._task.cancel()

    def end_sending(self) -> None:
        """End one that was cut and hangs in its sending since the last look."""
        if self.is_cut and self._sending and self._task is not None:
            if self._is_overdue:
                self._task.cancel()
            self._is_overdue = True

    def absorb(self) -> bool:
        """Whether a cancellation was its cut, which is then dealt with."""
        if self.is_cut and self._task is not None:
            self._task.uncancel()
        return self.is_cut


class Access:
    """One for all listeners. `tell` posts an event to the journal."""

    def __init__(
        self,
        config: Config,
        mint: Mint,
        audit: Audit,
        clock: Clock,
        tell: Callable[[Event], None],
    ) -> None:
        self.clock = clock
        self.denied = Denied()
        self.budgets = Budgets(_allowances(config))
        self.refused: Counter[str] = Counter()  # by reason
        self.calls = Calls()
        self._audit = audit
        self._tell = tell
        self._recent = Recent(mint.key)
        self._registry = self._known(config)
        self._lines = Restraint()
        self._reading: dict[asyncio.Task[object], float] = {}
        self._late: set[asyncio.Task[object]] = set()
        self._streams: set[OpenStream] = set()

    def configure(self, config: Config) -> int:
        """Know these identities, tokens and allowances from now on; how many streams were cut.

        Cut is what is open of a caller who is known no more, or by another token, or may do less.
        """
        self._registry = self._known(config)
        self.budgets.configure(_allowances(config))
        return self._cut_off(lambda caller, shown: not still_known(caller, shown, self._registry))

    def _known(self, config: Config) -> Registry:
        return Registry(
            identities={name: Role[role.upper()] for name, role in config.identities.items()},
            tokens=Tokens(
                {
                    name: Configured(name=name, sha256=each.sha256, role=Role[each.role.upper()])
                    for name, each in config.tokens.items()
                }
            ),
            check_minted=self._check_minted,
        )

    def identify(self, door: Door, shown: Shown) -> Caller:
        """Who calls. Raises AccessRefused."""
        return identify(door, shown, self._registry, self.denied)

    def peer(self, pem: bytes) -> PeerCertificate:
        """What a client's certificate says."""
        return peer(pem)

    @contextmanager
    def streaming(
        self,
        caller: Caller,
        shown: Shown,
        *,
        changing: bool,
    ) -> Iterator[OpenStream]:
        """Count a stream in and out, and be able to cut it. Raises TooManyStreams."""
        self.budgets.open_stream(caller, changing=changing)
        stream = OpenStream(caller, shown, asyncio.current_task())
        self._streams.add(stream)
        try:
            yield stream
        finally:
            self.budgets.close_stream(caller, changing=changing)
            self._streams.discard(stream)

    async def message(self, read: Awaitable[Any], began_boottime: float) -> Any:
        """The message of a call. Raises RequestLate where it does not come.

        One look a second at all that wait costs a call a tenth of what a timer of its own would.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 — for the type checker
        self._reading[task] = began_boottime
        try:
            return await read
        except asyncio.CancelledError:
            if task not in self._late:
                raise
            self._late.discard(task)
            task.uncancel()
            raise RequestLate(limit_seconds=MESSAGE_SECONDS) from None
        finally:
            del self._reading[task]

    def end_late(self) -> None:
        """End calls whose message has not come in time, and cut streams that nobody takes from.

        To be asked every second or so.
        """
        for stream in self._streams:
            stream.end_sending()
        oldest = self.clock.now().boottime - MESSAGE_SECONDS
        late = [task for task, began in self._reading.items() if began < oldest]
        for task in late:
            self._late.add(task)
            task.cancel()

    def deny(self, denied: Denied) -> int:
        """Refuse these from now on; how many open streams of theirs were cut."""
        self.denied = denied
        return self._cut_off(lambda caller, shown: is_denied(caller, shown, denied))

    def _cut_off(self, is_out: Callable[[Caller, Shown], bool]) -> int:
        doomed = [each for each in self._streams if is_out(each.caller, each.shown)]
        for stream in doomed:
            stream.cut()
        return len(doomed)

    def may_log(self, name: str, method: str, reason: str) -> bool:
        """Whether one more refusal of this kind goes into the log, which nobody may fill.

        What was held back is told once its minute is over and another one comes.
        """
        now = self.clock.now().boottime
        for each in self._lines.over(now):
            log.info("rpc.refused_often", **each.refusal._asdict(), count=each.count)
        return self._lines.admits(Refusal(name, known_method(method), reason), now)

    def record(self, entry: AuditEntry, *, decided: bool) -> None:
        """Write it down; what was refused for want of a right is an event as well.

        What was `decided` has a line of its own, however often the like of it comes.
        """
        is_told = self._audit.record(entry, decided=decided)
        event = event_of(entry)
        if event is not None and is_told:
            self._tell(event)

    def _check_minted(self, token: str) -> Minted:
        return self._recent.check(token, self.clock.now().boottime)


def _allowances(config: Config) -> Callable[[str], Allowance]:
    known: Mapping[str, Allowance] = {
        name: Allowance(
            key=f"quotas.{toml_key(name)}",
            streams=quota.streams,
            calls_per_second=quota.calls_per_second,
        )
        for name, quota in config.quotas.items()
    }
    fallback = known.get(DEFAULT_QUOTA, Allowance())
    return lambda owner: known.get(owner, fallback)
