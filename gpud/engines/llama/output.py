"""Pure: what llama-server prints, understood: buffers, progress, and why it ended."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from gpud.engines.engine import Covered
from gpud.models.model import FootprintWhat
from gpud.units import MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffer:
    """One allocation, as the server tells it. `where` is the server's own name for the memory."""

    where: str
    what: FootprintWhat
    bytes: int

    @property
    def on_host(self) -> bool:
        """Whether it lies in RAM: CPU, CPU_Mapped, CPU_REPACK, AMX, CUDA_Host."""
        return self.where.startswith(("CPU", "AMX")) or self.where.endswith("_Host")


# `0.00.048.026 I ` before a line, in builds that tell when and how grave it is; older ones do not.
_PREFIX = r"(?:[0-9.]{5,40} )?(?:[A-Z] )?"
# `load_tensors:   CPU_Mapped model buffer size =   153.76 MiB`. Only a whole line counts: texts of
# a model's file are printed too, and may hold anything.
_BUFFER = re.compile(
    rf"{_PREFIX}(?:load_tensors|llm_load_tensors|llama_\w+|sched_reserve|\w*init\w*): +"
    r"(?P<where>[A-Za-z]\w*) +(?P<kind>model|KV|RS|output|compute) buffer size = +"
    r"(?P<mib>\d+(?:\.\d+)?) MiB\s*"
)
# Lines that tell what stands in the model's file; a text of many lines goes on behind one.
_OF_THE_FILE = re.compile(rf"{_PREFIX}(?:llama_model_loader: - |print_info:|llm_load_print_meta:)")
# What the server itself says once its buffers are there: its template of a chat, among others.
_OF_THE_SERVER = re.compile(rf"{_PREFIX}(?:srv|slot|main|init) ")
_WHAT = {
    "model": FootprintWhat.WEIGHTS,
    "KV": FootprintWhat.KV_CACHE,
    "RS": FootprintWhat.STATE,
    "output": FootprintWhat.OUTPUT,
    "compute": FootprintWhat.COMPUTE,
}
_DOTS = re.compile(r"\.{1,100}")

# Tried in this order, causes before what follows from them: a server that could not allocate its
# cache also says that it failed to load. From exits that were provoked on build 11669, and the
# texts of older builds and of CUDA.
_MEANINGS = {
    r"couldn't bind HTTP server socket": "its port is taken",
    r"data is not within the file bounds": "the model file is cut short",
    r"cudaMalloc failed|out of memory|OutOfDeviceMemory": "it ran out of device memory",
    r"insufficient memory|unable to allocate|failed to allocate": "it ran out of memory",
    r"V cache (?:quantization )?requires flash_attn": "a quantized V cache needs flash attention",
    r"does not divide n_embd_head": "the model's heads are too narrow for this cache type",
    r"unknown model architecture": "this build does not know the model's architecture",
    r"failed to open GGUF file": "the model file cannot be opened",
    r"invalid magic|bad magic|failed to read magic": "the model file is not a GGUF file",
    r"failed to read key-value pairs": "the model file is damaged or cut short",
    r"no backends are loaded": "its compute libraries are missing beside the program",
    r"CUDA error": "the GPU driver reported an error",
    r"error while loading shared libraries": "a shared library is missing",
    r"invalid argument: |error while handling argument": "this build refuses an argument",
    r"^cannot execute ": "the program cannot be executed",
    r"Failed to load CLIP model|failed to load multimodal": "the projector could not be loaded",
    r"error loading model|failed to load model": "the model could not be loaded",
    r"exiting due to model loading error": "the model could not be loaded",
    # Only asked of one that gpud did not stop.
    r"Received second interrupt|cleaning up before exit": "somebody else told it to stop",
}


def parse_buffers(lines: tuple[str, ...]) -> tuple[Buffer, ...]:
    """Every buffer that the lines tell of, in their order; the server prints them at `-lv 4`.

    They come after what the model's file says of itself and before the server speaks: what looks
    like one elsewhere is a text of the file.
    """
    found: list[Buffer] = []
    for line in lines:
        if _OF_THE_FILE.match(line):
            found = []
        elif match := _BUFFER.fullmatch(line):
            size = round(float(match["mib"]) * MIB)
            found.append(Buffer(where=match["where"], what=_WHAT[match["kind"]], bytes=size))
        elif found and _OF_THE_SERVER.match(line):
            break
    return tuple(found)


def covered(buffers: tuple[Buffer, ...]) -> Covered | None:
    """What counts against the promise: the buffers of the dearest device, else the host's.

    Each of several devices was promised what the dearest of them needs. Matrices that are split by
    rows are told for all devices together, and count evenly.
    Weights that the CPU repacks lie in memory of their own, and the mapped file behind them is
    cache that the kernel may drop: of the two the larger counts. None: no buffers were told.
    """
    devices: dict[str, list[Buffer]] = {}
    for buffer in buffers:
        if not buffer.on_host:
            devices.setdefault(buffer.where, []).append(buffer)
    if not devices:
        return _covered(_without_mapped(buffers)) if buffers else None
    by_rows = [each for where in tuple(devices) if _is_split(where) for each in devices.pop(where)]
    shares = [replace(each, bytes=each.bytes // max(len(devices), 1)) for each in by_rows]
    return _covered((*max(devices.values(), key=_total, default=[]), *shares))


def _is_split(where: str) -> bool:
    return where.endswith("_Split")


def _without_mapped(buffers: tuple[Buffer, ...]) -> tuple[Buffer, ...]:
    """Those of the host that count: of weights that are mapped and repacked the larger."""
    weights = [buffer for buffer in buffers if buffer.what is FootprintWhat.WEIGHTS]
    mapped = [buffer for buffer in weights if buffer.where.endswith("_Mapped")]
    anonymous = [buffer for buffer in weights if buffer not in mapped]
    smaller = min(mapped, anonymous, key=_total)
    return tuple(buffer for buffer in buffers if buffer not in smaller)


def _covered(buffers: tuple[Buffer, ...]) -> Covered:
    return Covered(
        what=frozenset(buffer.what for buffer in buffers),
        bytes=_total(buffers),
        weights_bytes=_total(each for each in buffers if each.what is FootprintWhat.WEIGHTS),
    )


def _total(buffers: Iterable[Buffer]) -> int:
    return sum(buffer.bytes for buffer in buffers)


def load_fraction(lines: tuple[str, ...]) -> float | None:
    """How far the weights are, 0..1: builds that tell print one dot per percent."""
    for line in reversed(lines):
        if _DOTS.fullmatch(line.strip()):
            return len(line.strip()) / 100
    return None


def explain_exit(lines: tuple[str, ...]) -> str:
    """What the last lines mean, in a few words; empty when they say nothing known.

    What stands in the model's file means nothing, whatever it says.
    """
    lines = tuple(line for line in lines if not _OF_THE_FILE.match(line))
    for pattern, meaning in _MEANINGS.items():
        if any(re.search(pattern, line) for line in lines):
            return meaning
    return ""
