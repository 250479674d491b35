"""Pure: what one engine has counted, in the same words for every kind of engine."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from gpud.engines.counting.exposition import Histogram

# A float counts by one up to here; more requests at once than this no server has.
MOST_TOTAL: Final = float(2**53)
MOST_REQUESTS: Final = float(2**31 - 1)
# llama-server writes 6 digits of a number that is no whole one.
_ROUNDING: Final = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """At one moment; None: it does not tell. Totals only grow, from the start of its process.

    `given_tokens` grows with each token as it is given, `generated_tokens` in some engines by all
    of a request's at its end. `token_steps` are steps of the model, told where each of them gives
    one token to each request that is served. Of `prompt_tokens` some engines leave out what their
    cache held.
    """

    running: int | None = None
    waiting: int | None = None
    slots: int | None = None
    slots_full: bool | None = None  # requests wait for one
    kv_used_ratio: float | None = None
    generated_tokens: float | None = None
    given_tokens: float | None = None
    prompt_tokens: float | None = None
    cached_tokens: float | None = None  # of prompts, held by its cache
    looked_up_tokens: float | None = None  # of prompts, looked for in its cache
    requests: float | None = None  # that came to an end, the failed ones too
    failed: float | None = None
    preemptions: float | None = None
    steps: float | None = None  # of the model
    token_steps: float | None = None
    slot_steps: float | None = None  # the same, once for each slot that was busy
    prompt_seconds: float | None = None  # spent on prompts, by requests
    generation_seconds: float | None = None
    time_to_first_token: Histogram | None = None  # spans, in seconds
    inter_token: Histogram | None = None
    request: Histogram | None = None
    queue: Histogram | None = None
    prefill: Histogram | None = None
    decode: Histogram | None = None
    is_cut: bool = False  # it told more than is read
    senseless: tuple[str, ...] = ()  # metrics that it told, with values that no server can have

    @property
    def is_blank(self) -> bool:
        """Whether nothing at all is known."""
        return all(
            getattr(self, each.name) is None
            for each in fields(self)
            if each.name not in {"is_cut", "senseless"}
        )


def given_between(before: Counters, after: Counters) -> float | None:
    """Tokens given between two looks at one engine.

    None where it does not tell, or its totals fell: then it began anew.
    """
    grown = _growth(before.given_tokens, after.given_tokens)
    if grown is not None:
        return grown
    steps = _growth(before.token_steps, after.token_steps)
    if steps is not None and before.running is not None and after.running is not None:
        return steps * max(1.0, (before.running + after.running) / 2)
    return _growth(before.generated_tokens, after.generated_tokens)


def _growth(before: float | None, after: float | None) -> float | None:
    if before is None or after is None or fell(before, after):
        return None
    return max(0.0, after - before)


def fell(before: float, after: float) -> bool:
    """Whether a total is less than before, by more than its digits may hide."""
    return before - after > _ROUNDING * before


def counted(value: float | None) -> float | None:
    """A total as it may be believed; None for what no server can have counted."""
    return value if value is not None and 0 <= value <= MOST_TOTAL else None


def at_once(value: float | None) -> int | None:
    """A number of requests as it may be believed."""
    return round(value) if value is not None and 0 <= value <= MOST_REQUESTS else None


def share(value: float | None) -> float | None:
    """A ratio as it may be believed: 0 … 1."""
    return value if value is not None and 0 <= value <= 1 else None


def summed(*values: float | None) -> float | None:
    """Of those that are known; None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
