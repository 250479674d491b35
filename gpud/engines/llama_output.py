"""Pure: what llama-server prints, understood: buffers, progress, and why it ended."""

from __future__ import annotations

import re
from dataclasses import dataclass

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


# `load_tensors:   CPU_Mapped model buffer size =   153.76 MiB`, with or without a log prefix.
_BUFFER = re.compile(
    r"(?:load_tensors|llm_load_tensors|llama_\w+|sched_reserve|\w*init\w*): +"
    r"(?P<where>[A-Za-z]\w*) +(?P<kind>model|KV|RS|output|compute) buffer size = +"
    r"(?P<mib>\d+(?:\.\d+)?) MiB"
)
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
    """Every buffer that the lines tell of, in their order; the server prints them at `-lv 4`."""
    return tuple(
        Buffer(
            where=match["where"],
            what=_WHAT[match["kind"]],
            bytes=round(float(match["mib"]) * MIB),
        )
        for line in lines
        if (match := _BUFFER.search(line))
    )


def charged_bytes(buffers: tuple[Buffer, ...]) -> int | None:
    """What counts against the promise: the buffers of the dearest device, else the host's.

    Each of several devices was promised what the dearest of them needs. Matrices that are split by
    rows are told for all devices together, and count evenly.
    Weights that the CPU repacks lie in memory of their own, and the mapped file behind them is
    cache that the kernel may drop: of the two the larger counts. None: no buffers were told.
    """
    if not buffers:
        return None
    devices: dict[str, int] = {}
    for buffer in buffers:
        if not buffer.on_host:
            devices[buffer.where] = devices.get(buffer.where, 0) + buffer.bytes
    by_rows = sum(devices.pop(where) for where in tuple(devices) if where.endswith("_Split"))
    if devices or by_rows:
        return max(devices.values(), default=0) + by_rows // max(len(devices), 1)
    weights = [buffer for buffer in buffers if buffer.what is FootprintWhat.WEIGHTS]
    mapped = sum(buffer.bytes for buffer in weights if buffer.where.endswith("_Mapped"))
    anonymous = sum(buffer.bytes for buffer in weights) - mapped
    rest = sum(buffer.bytes for buffer in buffers if buffer.what is not FootprintWhat.WEIGHTS)
    return max(mapped, anonymous) + rest


def load_fraction(lines: tuple[str, ...]) -> float | None:
    """How far the weights are, 0..1: builds that tell print one dot per percent."""
    for line in reversed(lines):
        if _DOTS.fullmatch(line.strip()):
            return len(line.strip()) / 100
    return None


def explain_exit(lines: tuple[str, ...]) -> str:
    """What the last lines mean, in a few words; empty when they say nothing known."""
    for pattern, meaning in _MEANINGS.items():
        if any(re.search(pattern, line) for line in lines):
            return meaning
    return ""
