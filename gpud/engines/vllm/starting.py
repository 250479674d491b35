"""Pure: what a start of vLLM is doing, and how far it is, by the lines that it prints.

Time goes into imports, three times over, more than into the weights of anything small; so the
fractions are marks of the way, not shares of the time.
"""

from __future__ import annotations

import re
from typing import Final

from gpud.engines.engine import LoadStep

# Before it has printed anything of interest: Python, and its packages.
BEGINNING: Final = LoadStep(detail="its program starts", fraction=0.0)

# In the order in which a start prints them, from 0.32 on a CPU and the source of it for CUDA: the
# line, how far it then is, and what comes next. {} is what the line tells.
_MARKS: Final = (
    (r"non-default args:", 0.2, "reads the model's configuration"),
    (r"Resolved architecture: (\S{1,80})", 0.35, "starts the engine core of {}"),
    (r"Initializing a V1 LLM engine", 0.45, "starts its workers"),
    (r"Starting to load model", 0.5, "loads the weights"),
    (r"Checkpoint size: ([0-9.]+ GiB)", 0.5, "loads {} of weights"),
    (r"(?:Loading weights|Model loading) took ", 0.8, "the weights are loaded: measures a step"),
    (r"Using cache directory: .* torch.compile", 0.8, "compiles the model"),
    (r"Dynamo bytecode transform time", 0.82, "compiles the model: its graph is traced"),
    (r"Compiling a graph for compile range ", 0.84, "compiles the model: a graph is done"),
    (r"Directly load the compiled graph", 0.84, "takes the compiled model from its cache"),
    (r"torch\.compile took ([0-9.]+ s)", 0.86, "the model was compiled in {}"),
    (r"KV cache size: ([0-9,]+ tokens)", 0.9, "a KV cache of {}: warms up"),
    (r"Graph capturing finished", 0.94, "the CUDA graphs are captured"),
    (r"init engine .* took", 0.95, "the engine is ready: its server starts"),
    (r"Application startup complete", 1.0, "its server has started"),
)
_MARKED: Final = tuple((re.compile(sign), at, words) for sign, at, words in _MARKS)
# Bars, from where to where on the way; they may count several files, graphs or sizes of a batch.
_BARS: Final = (
    (
        re.compile(r"Loading safetensors checkpoint shards[^:]*: +\d+% Completed \| (\d+)/(\d+)"),
        (0.5, 0.8),
        "loads the weights: {} of {} files",
    ),
    (
        re.compile(r"Capturing CUDA graphs[^:]*: +\d+%\|.*\| (\d+)/(\d+)"),
        (0.9, 0.94),
        "captures CUDA graphs: {} of {}",
    ),
)


def load_step(lines: tuple[str, ...]) -> LoadStep:
    """By the last of the lines that tells."""
    for line in reversed(lines):
        if found := _bar(line) or _mark(line):
            return found
    return BEGINNING


def _bar(line: str) -> LoadStep | None:
    for sign, (begin, end), words in _BARS:
        if match := sign.search(line):
            done, whole = int(match[1]), max(int(match[2]), 1)
            fraction = begin + min(done / whole, 1.0) * (end - begin)
            return LoadStep(detail=words.format(done, whole), fraction=fraction)
    return None


def _mark(line: str) -> LoadStep | None:
    for sign, fraction, words in _MARKED:
        if match := sign.search(line):
            return LoadStep(detail=words.format(*match.groups()), fraction=fraction)
    return None
