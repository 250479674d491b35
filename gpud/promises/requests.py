"""Request ids: the same id gives the same result for a day, and another body is refused."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import msgspec

from gpud.errors import OptionInvalid
from gpud.store import Committed, Row

REQUESTS_KEPT_SECONDS = 24 * 3600.0
_BETWEEN = "\x1f"  # the unit separator, which no request_id may hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """What a request_id was first used for."""

    method: str
    digest: str
    result: str  # id of the reservation, instance or device
    wall: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """How a mutating call came: from whom, and under which request_id with which body.

    Each caller has request ids of its own: nobody learns of another's, or can take one before it.
    """

    method: str
    caller: str = ""
    request_id: str = ""
    digest: str = ""

    @property
    def key(self) -> str:
        """What it is remembered by; empty without a request_id."""
        return f"{self.caller}{_BETWEEN}{self.request_id}" if self.request_id else ""


@dataclass(slots=True)
class Requests:
    """Calls by their keys and what they led to; `pending` ones are on their way to the disk."""

    known: dict[str, Remembered] = field(default_factory=dict)
    pending: dict[str, asyncio.Future[Committed]] = field(default_factory=dict)

    def find(self, call: Call) -> Remembered | None:
        """What the id led to before. Raises OptionInvalid when it was another request."""
        known = self.known.get(call.key) if call.key else None
        if known is not None and (known.method, known.digest) != (call.method, call.digest):
            raise OptionInvalid(
                field="request_id",
                problem=f"{call.request_id!r} was used for another {known.method}; "
                "send each new request with a new id",
            )
        return known

    def remember(self, call: Call, result: str, wall: float) -> tuple[Row, ...]:
        """The row that makes a request_id answer the same again; none for a call without one."""
        if not call.key:
            return ()
        known = Remembered(method=call.method, digest=call.digest, result=result, wall=wall)
        self.known[call.key] = known
        return (Row(kind="request", id=call.key, body=msgspec.json.encode(known)),)

    def await_commit(self, call: Call, done: asyncio.Future[Committed]) -> None:
        """Until it is durable, the same id waits for this commit."""
        if call.key:
            self.pending[call.key] = done
            done.add_done_callback(lambda _: self.pending.pop(call.key, None))

    async def settled(self, call: Call) -> None:
        """Wait until what the id led to is durable."""
        pending = self.pending.get(call.key)
        if pending is not None:
            await asyncio.shield(pending)

    def forget(self, call: Call) -> tuple[Row, ...]:
        """The rows that forget a call which was refused after all."""
        if self.known.pop(call.key, None) is None:
            return ()
        return (Row(kind="request", id=call.key, body=None),)

    def forget_old(self, wall: float) -> tuple[Row, ...]:
        """The rows that forget ids older than a day."""
        oldest = wall - REQUESTS_KEPT_SECONDS
        old = [id_ for id_, known in self.known.items() if known.wall < oldest]
        for id_ in old:
            del self.known[id_]
        return tuple(Row(kind="request", id=id_, body=None) for id_ in old)
