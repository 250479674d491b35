"""Pages of a list: opaque tokens that name the last thing shown, so that changes shift nothing."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from gpud.errors import OptionInvalid

T = TypeVar("T")

DEFAULT_PAGE = 100
MAX_PAGE = 1000


class Paged(Protocol):
    """A request for one page."""

    page_size: int
    page_token: str


def checked_size(page_size: int) -> int:
    """How many to show. Raises OptionInvalid."""
    if page_size < 0:
        raise OptionInvalid(field="page_size", problem=f"{page_size} is below 0")
    return min(page_size or DEFAULT_PAGE, MAX_PAGE)


def encode(key: str) -> str:
    """The token that continues after `key`."""
    return base64.urlsafe_b64encode(key.encode()).decode()


def decode(token: str) -> str:
    """The key in a token. Raises OptionInvalid."""
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise OptionInvalid(
            field="page_token", problem="not one that this list gave; ask without it"
        ) from error


def page(items: Sequence[T], key: Callable[[T], str], request: Paged) -> tuple[Sequence[T], str]:
    """One page of `items`, which are sorted by their unique `key`, and the next token."""
    size = checked_size(request.page_size)
    start = 0
    if request.page_token:
        last = decode(request.page_token)
        start = next((i for i, item in enumerate(items) if key(item) > last), len(items))
    shown = items[start : start + size]
    more = start + size < len(items)
    return shown, encode(key(shown[-1])) if more else ""
