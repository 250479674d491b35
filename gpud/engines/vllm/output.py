"""Pure: what vLLM prints, understood: bytes, and why it ended."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from gpud.engines.engine import Covered
from gpud.models.model import FootprintWhat
from gpud.units import GIB

# It goes on living after these, some for ten minutes, but never becomes ready.
_HOPELESS: Final = (
    "EngineCore failed to start",
    "WorkerProc failed to start",
    "Engine core initialization failed",
    "EngineCore encountered a fatal error",
)

# Tried in this order, causes before what follows from them. From failures that were provoked on
# 0.32 on a CPU, and the texts of its source for CUDA.
_MEANINGS: Final = {
    r"CUDA out of memory|OutOfMemoryError|HIP out of memory": "it ran out of device memory",
    r"Free memory on device .* is less than desired GPU memory": (
        "less of the card is free than its promise"
    ),
    r"is less than requested memory for kv|No available memory for the cache blocks": (
        "its KV cache does not fit into memory"
    ),
    r"KV cache is needed, which is larger than the available KV cache": (
        "its KV cache does not hold one sequence of context_length tokens"
    ),
    r"is greater than the derived max_model_len": "the model was trained on fewer tokens",
    r"SafetensorError|safetensors.*(?:incomplete|corrupt)": "a file of its weights is damaged",
    r"Model architectures .* are not supported": "this vLLM does not know the architecture",
    r"Quantization method .* (?:is not|specified)|not supported .*quantization": (
        "this vLLM cannot serve this quantization here"
    ),
    r"Sleep mode is not supported": "it cannot sleep on this platform",
    r"Address already in use": "its port is taken",
    r"unrecognized arguments|invalid choice|expected one argument": (
        "this build refuses an argument"
    ),
    r"does not appear to have a file named|LocalEntryNotFoundError": "a file of its is missing",
    r"Can't load tokenizer|Couldn't instantiate the backend tokenizer": "its tokenizer is missing",
    r"No module named": "its installation is not complete",
    r"\[shutdown\] API server: shutdown triggered": "it was told to stop",
    r"(?:exited|died) unexpectedly|EngineDeadError|EngineCore encountered a fatal error": (
        "one of its own processes ended"
    ),
    r"^cannot execute ": "the program cannot be executed",
    r"Engine core initialization failed|failed to start": "its engine could not start",
}
# The worker's line of the error itself, rather than the trace around it.
_CAUSE = re.compile(r"ERROR .*\] (?:\w+\.)*(\w*(?:Error|Exception)): (.{1,300})")


def hopeless(lines: tuple[str, ...]) -> str:
    """What says that it will never be ready, though it may still run; empty: nothing does."""
    if not any(sign in line for line in lines for sign in _HOPELESS):
        return ""
    causes = [match for line in lines if (match := _CAUSE.search(line))]
    meaning = explain_exit(lines)
    detail = causes[0][2].strip() if causes else ""
    return f"{meaning}: {detail}" if meaning and detail else meaning or detail or "it failed"


def explain_exit(lines: tuple[str, ...]) -> str:
    """What the last lines mean, in a few words; empty when they say nothing known."""
    for pattern, meaning in _MEANINGS.items():
        if any(re.search(pattern, line) for line in lines):
            return meaning
    return ""


_MODEL_TOOK = re.compile(r"Model loading took ([0-9.]+) GiB")
_GRAPHS_TOOK = re.compile(r"Graph capturing finished in .* took (-?[0-9.]+) GiB")
_CACHE_TOOK = re.compile(r"'kv_cache_memory_bytes': ([0-9]+)")


def measured_bytes(lines: tuple[str, ...]) -> int | None:
    """Weights, cache and graphs of the card with the most, as told while it started.

    None where it does not tell: on a CPU it never does.
    """
    told = covered(lines)
    if told is None:
        return None
    graphs = [float(found[1]) for line in lines if (found := _GRAPHS_TOOK.search(line))]
    return told.bytes + round(max([*graphs, 0.0]) * GIB)


def covered(lines: tuple[str, ...]) -> Covered | None:
    """What is known of the next such load by this one: its weights and its cache.

    Its graphs are a part of an item only; of its activations and logits it tells nothing, and
    what else it takes the devices tell.
    """
    weights = [float(found[1]) for line in lines if (found := _MODEL_TOOK.search(line))]
    if not weights:
        return None
    cache = [int(found[1]) for line in lines if (found := _CACHE_TOOK.search(line))]
    what = {FootprintWhat.WEIGHTS} | ({FootprintWhat.KV_CACHE} if cache else set())
    took = round(max(weights) * GIB)
    return Covered(what=frozenset(what), bytes=took + max(cache, default=0), weights_bytes=took)


def prompt_tokens(answer: Mapping[str, Any]) -> int:
    """How long the prompt of an answer was, in tokens; 0 where it does not say."""
    usage = answer.get("usage")
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) else 0


def longest_prompt(listed: Mapping[str, Any]) -> int:
    """The context of the first of the models that /v1/models lists; 0 where it does not say."""
    models = listed.get("data")
    first = models[0] if isinstance(models, list) and models else None
    count = first.get("max_model_len") if isinstance(first, dict) else None
    return count if isinstance(count, int) else 0
