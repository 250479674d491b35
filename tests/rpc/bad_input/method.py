"""What is told of a method, so that all that can be wrong is sent to it.

A field without an entry fails the test, and so does a method: whoever adds one says here what may
not come in it, or that anything may (`free`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gpud.rpc import paging
from gpud.v1 import node_pb2
from tests.rpc.bad_input import values
from tests.rpc.bad_input.values import Value, Values

GIB = 2**30
WEEK_SECONDS = 7 * 86400
HOUR_SECONDS = 3600
# A token of a list that none of the others is.
ANOTHER = paging.encode("x", node_pb2.ListEventsRequest(type="another"))


@dataclass(frozen=True, kw_only=True)
class World:
    """What there is: a lease, one that ended, one that is held, and the daemon."""

    live: str
    ended: str
    held: str
    gpud_pid: int


@dataclass(frozen=True, kw_only=True)
class Method:
    """`base` is right but for what `fields` put wrong; `more` are whole requests.

    `harmless` is refused, or changes nothing: for what is wrong around a request.
    """

    request: type[Any]
    base: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Callable[[], Values]] = field(default_factory=dict)
    free: frozenset[str] = frozenset()
    more: tuple[Value, ...] = ()
    harmless: Mapping[str, Any] = field(default_factory=dict)


def paged(request: type[Any], forged: str) -> dict[str, Callable[[], Values]]:
    """The fields that every list has; `forged` is a place that is in none."""
    token = paging.encode(forged, request()) if forged else ""
    return {
        "page_size": values.page_size,
        "page_token": lambda: values.page_token(ANOTHER, token),
    }
