"""Two waits of which the first to end counts; none outlives the call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def unless(work: Awaitable[None], end: Awaitable[T]) -> T | None:
    """Do `work`, unless `end` comes first: then cancel the work and return what `end` gave.

    None when the work was done. Raises what the work raises. A TaskGroup would wrap that in a
    group and cancel the caller, which is the one who has to roll back.
    """
    doing = asyncio.ensure_future(work)  # noqa: TID251 — both are ended below, whatever happens
    ending = asyncio.ensure_future(end)  # noqa: TID251
    try:
        await asyncio.wait((doing, ending), return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            doing.result()
            return None
        return ending.result()
    finally:
        unfinished = [task for task in (doing, ending) if not task.done()]
        for task in unfinished:
            task.cancel()
        if unfinished:
            await asyncio.wait(unfinished)
