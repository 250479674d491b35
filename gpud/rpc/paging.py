"""Pages of a list: opaque tokens that name the last thing shown, so that changes shift nothing."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from google.protobuf.message import Message

from gpud.errors import OptionInvalid
from gpud.v1 import (
    alerts_pb2,
    benchmarks_pb2,
    devices_pb2,
    instances_pb2,
    models_pb2,
    node_pb2,
    reservations_pb2,
)

T = TypeVar("T")

DEFAULT_PAGE = 100
MAX_PAGE = 1000


Paged = (
    alerts_pb2.ListAlertsRequest
    | devices_pb2.ListDevicesRequest
    | instances_pb2.ListInstancesRequest
    | instances_pb2.ListOrphansRequest
    | benchmarks_pb2.ListBenchmarksRequest
    | models_pb2.ListModelsRequest
    | node_pb2.ListEventsRequest
    | reservations_pb2.ListReservationsRequest
)


def checked_size(page_size: int) -> int:
    """How many to show. Raises OptionInvalid."""
    if page_size < 0:
        raise OptionInvalid(field="page_size", problem=f"{page_size} is below 0")
    return min(page_size or DEFAULT_PAGE, MAX_PAGE)


def encode(key: str, request: Message) -> str:
    """The token that continues after `key` in the list that was asked for."""
    return base64.urlsafe_b64encode(f"{_scope(request)}{key}".encode()).decode()


def decode(request: Paged) -> str:
    """The key in the request's token. Raises OptionInvalid when another list gave it."""
    try:
        text = base64.b64decode(request.page_token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        text = ""
    scope = _scope(request)
    if not text.startswith(scope):
        raise OptionInvalid(
            field="page_token",
            problem="not one that this list gave, with these filters; ask without it",
        )
    return text.removeprefix(scope)


def page(items: Sequence[T], key: Callable[[T], str], request: Paged) -> tuple[Sequence[T], str]:
    """One page of `items`, which are sorted by their unique `key`, and the next token."""
    size = checked_size(request.page_size)
    start = 0
    if request.page_token:
        last = decode(request)
        start = next((i for i, item in enumerate(items) if key(item) > last), len(items))
    shown = items[start : start + size]
    more = start + size < len(items)
    return shown, encode(key(shown[-1]), request) if more else ""


def page_after(
    items: Callable[[str | None], Iterator[T]], key: Callable[[T], str], request: Paged
) -> tuple[list[T], str]:
    """One page of what follows the token's key, and the next token; asks for no more than that.

    `items` gives what comes after a key in order. Raises OptionInvalid.
    """
    size = checked_size(request.page_size)
    found = list(islice(items(decode(request) if request.page_token else None), size + 1))
    shown = found[:size]
    return shown, encode(key(shown[-1]), request) if len(found) > size else ""


def _scope(request: Message) -> str:
    """Which list, with which filters: the request without its paging."""
    asked = type(request)()
    asked.CopyFrom(request)
    asked.ClearField("page_size")
    asked.ClearField("page_token")
    digest = hashlib.sha256(asked.SerializeToString(deterministic=True)).hexdigest()[:8]
    return f"{type(request).__name__}/{digest}/"
