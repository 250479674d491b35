"""Pure: what llama-server counts, in builds old and new; what a build does not tell stays None.

Its counters of tokens grow when a request ends, by all of its tokens. The steps of the model,
times the slots that were busy at each, grow with every token, and beside that only by one for each
further batch of a long prompt.
"""

from __future__ import annotations

from typing import Final

from gpud.engines.counting.counters import Counters, at_once, counted, share, summed
from gpud.engines.counting.exposition import Exposition, read
from gpud.engines.engine import Pulse

_NAMES: Final = frozenset(
    f"llamacpp:{name}"
    for name in (
        "requests_processing",
        "requests_deferred",
        "tokens_predicted_total",
        "tokens_predicted_seconds_total",
        "prompt_tokens_total",
        "prompt_tokens_cached_total",
        "prompt_seconds_total",
        "n_decode_total",
        "n_busy_slots_per_decode",
        "kv_cache_usage_ratio",
        "spec_decode_num_drafts_total",
    )
)
_WORK: Final = ("n_decode_total", "tokens_predicted_total", "prompt_tokens_total")
# The mean of busy slots comes with 6 digits: beyond so many it hides some ten tokens.
_MOST_SLOT_STEPS: Final = 5e6


def counters(metrics: str) -> Counters:
    """From the text of /metrics."""
    return _counters(read(metrics, _NAMES))


def _counters(told: Exposition) -> Counters:
    def total(name: str) -> float | None:
        return counted(told.total(f"llamacpp:{name}"))

    prompt, cached = total("prompt_tokens_total"), total("prompt_tokens_cached_total")
    deferred = at_once(told.total("llamacpp:requests_deferred"))
    steps, slot_steps = total("n_decode_total"), _slot_steps(told)
    by_step = _gives_one_token_a_step(told)
    return Counters(
        running=at_once(told.total("llamacpp:requests_processing")),
        waiting=deferred,
        # A request is deferred for want of a slot, and for nothing else.
        slots_full=True if deferred else None,
        kv_used_ratio=share(told.total("llamacpp:kv_cache_usage_ratio")),
        generated_tokens=total("tokens_predicted_total"),
        given_tokens=slot_steps if by_step else None,
        prompt_tokens=prompt,
        cached_tokens=cached,
        looked_up_tokens=None if cached is None else summed(prompt, cached),
        steps=steps,
        token_steps=steps if by_step else None,
        slot_steps=slot_steps,
        prompt_seconds=total("prompt_seconds_total"),
        generation_seconds=total("tokens_predicted_seconds_total"),
        is_cut=told.is_cut,
    )


def pulse(metrics: str) -> Pulse:
    """From the text of /metrics.

    A decode is a step of the model, for prompts too: it grows with any work that is done.
    """
    told = read(metrics, _NAMES)
    said = _counters(told)
    work = (counted(told.total(f"llamacpp:{name}")) for name in _WORK)
    return Pulse(
        running=said.running,
        waiting=said.waiting,
        progress=summed(*work),
        completed=said.generated_tokens,
        tokens=said.generated_tokens,
        holds_contexts=True,
        counters=said,
    )


def _slot_steps(told: Exposition) -> float | None:
    steps = told.total("llamacpp:n_decode_total")
    busy = told.total("llamacpp:n_busy_slots_per_decode")
    if steps is None or busy is None:
        return None
    product = counted(steps * busy)
    return product if product is not None and product <= _MOST_SLOT_STEPS else None


def _gives_one_token_a_step(told: Exposition) -> bool:
    """Not with drafts, which give several, nor for what computes embeddings alone.

    Each server that gives tokens has given some: gpud warms it up.
    """
    generated = told.total("llamacpp:tokens_predicted_total")
    return bool(generated) and not told.total("llamacpp:spec_decode_num_drafts_total")
