"""What NodeService tells of the journal."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from gpud.errors import OptionInvalid
from gpud.events import Event, Filter, Journal
from gpud.rpc import messages, paging
from gpud.v1 import node_pb2 as pb

# As a page token holds it; the journal's numbers have 63 bits.
_SEQUENCE = re.compile(r"[0-9]{1,18}")
# So many of the newest are kept as bytes, for all who follow.
_ENCODED = 256


class EventMethods:
    """The methods of NodeService about events."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._encoded: OrderedDict[int, bytes] = OrderedDict()

    async def ListEvents(
        self, request: pb.ListEventsRequest, context: Any
    ) -> pb.ListEventsResponse:
        """Newest first."""
        size = paging.checked_size(request.page_size)
        before = None
        if request.page_token:
            text = paging.decode(request)
            if not _SEQUENCE.fullmatch(text):
                raise OptionInvalid(field="page_token", problem="not one that this list gave")
            before = int(text)
        until = _wall(request.until) if request.HasField("until") else None
        kept = Filter(**_narrowed(request), until_wall=until)
        if until is not None and kept.since_wall is not None and kept.since_wall > until:
            said = (
                f"it is {kept.since_wall - until:.6g} s before `since`; swap `since` and `until`"
            )
            raise OptionInvalid(field="until", problem=said)
        found = await self._journal.page(kept, before, size + 1)
        oldest = await self._journal.oldest()
        shown = found[:size]
        more = len(found) > size
        return pb.ListEventsResponse(
            events=[messages.event(each) for each in shown],
            next_page_token=paging.encode(str(shown[-1].sequence), request) if more else "",
            oldest_sequence=oldest.sequence if oldest is not None else 0,
            oldest_time=messages.stamp(oldest.wall) if oldest is not None else None,
        )

    async def WatchEvents(
        self, request: pb.WatchEventsRequest, context: Any
    ) -> AsyncIterator[pb.WatchEventsResponse]:
        """Every event after the sequence, or from the moment, asked for; else only new ones."""
        after = self._journal.last_sequence
        if request.HasField("after_sequence"):
            after = request.after_sequence
            await self._check_reached(after)
        elif request.HasField("since"):
            after = 0
        followed = self._journal.follow(Filter(**_narrowed(request)), after)
        async with aclosing(followed) as events:
            async for each in events:
                yield self._bytes(each)

    async def _check_reached(self, sequence: int) -> None:
        """Raises OptionInvalid for a number that no event has had."""
        if sequence < 0:
            raise OptionInvalid(field="after_sequence", problem="below 0")
        if sequence <= self._journal.last_sequence:
            return
        # Who has just listed it may know of one more than followers do: the store says.
        newest = await self._journal.page(Filter(), None, 1)
        last = newest[0].sequence if newest else 0
        if sequence > last:
            problem = f"{sequence} is beyond the newest event, {last}; begin with {last} at most"
            raise OptionInvalid(field="after_sequence", problem=problem)

    def _bytes(self, event: Event) -> Any:
        """A WatchEventsResponse in bytes, made once for all who follow at about the same time."""
        known = self._encoded.get(event.sequence)
        if known is None:
            told = pb.WatchEventsResponse(event=messages.event(event))
            known = self._encoded[event.sequence] = told.SerializeToString()
            if len(self._encoded) > _ENCODED:
                self._encoded.popitem(last=False)
        return known


def _narrowed(request: pb.ListEventsRequest | pb.WatchEventsRequest) -> dict[str, Any]:
    return {
        "type": messages.checked_text("type", request.type),
        "subject": messages.checked_text("subject", request.subject),
        "request_id": messages.checked_text("request_id", request.request_id, 128),
        "since_wall": _wall(request.since) if request.HasField("since") else None,
    }


def _wall(moment: Timestamp) -> float:
    return moment.seconds + moment.nanos / 1e9
