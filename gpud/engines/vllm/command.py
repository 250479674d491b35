"""Pure: vLLM's command line: its --help read, argv and environment made.

What a load may take is not left to vLLM, which would take 92 % of the whole card: its cache is
pinned to the bytes that the promise was made for, and its share of the card to the promise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gpud.devices.snapshot import DeviceKind
from gpud.engines.engine import EngineProgram, StartRequest
from gpud.engines.options.extra_args import check_build
from gpud.engines.programs import environment as base
from gpud.engines.vllm.options import settle
from gpud.errors import OptionInvalid
from gpud.models.footprint import DeviceTraits
from gpud.models.hugging_face.config import HfModel
from gpud.models.hugging_face.footprint import cache_bytes, overhead_bytes
from gpud.models.model import ModelKind, ModelOptions
from gpud.units import MIB, format_size

# What its environment may hold beside what any engine's may.
OWN_NAMES: Final = frozenset(
    {
        "HF_HUB_OFFLINE",
        "DO_NOT_TRACK",
        "SPT_NOENV",
        "VLLM_NO_USAGE_STATS",
        "VLLM_CACHE_ROOT",
        "VLLM_RPC_BASE_PATH",
        "VLLM_HOST_IP",
        "VLLM_API_KEY",
        "VLLM_SERVER_DEV_MODE",
    }
)
NEEDED_FLAGS: Final = (
    "--host", "--port", "--served-model-name", "--max-model-len", "--max-num-seqs",
    "--kv-cache-memory-bytes", "--gpu-memory-utilization", "--load-format",
)  # fmt: skip
# vLLM wants one, and an encoder, which has no cache, is not given it.
LEAST_CACHE_BYTES: Final = MIB
_FLAG = re.compile(r"--[a-z0-9][a-z0-9-]*")
_CHOICES = re.compile(r"\{([\w,.-]+)\}")
_HELP_COLUMN: Final = 24


def read_flags(help_text: str) -> dict[str, str]:
    """Each long flag that begins an entry of `--help=all`, with the entry's own text.

    An entry begins two columns in; its names end where the help begins, at column 24 or, where
    they are too long for that, with the line.
    """
    entries: list[tuple[str, list[str]]] = []
    for line in help_text.splitlines():
        if line.startswith("  -"):
            head = line if line[_HELP_COLUMN - 1 : _HELP_COLUMN] != " " else line[:_HELP_COLUMN]
            entries.append((head, [line.strip()]))
        elif entries and line.startswith("    "):
            entries[-1][1].append(line.strip())
    return {
        word: " ".join(text)
        for head, text in entries
        for word in re.split(r"[\s,]+", head)
        if _FLAG.fullmatch(word)
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What vLLM is told to take: of its cache in bytes, of the whole device as a fraction."""

    cache_bytes: int
    utilization: float


def memory(model: HfModel, request: StartRequest) -> Memory:
    """From the promise. Raises OptionInvalid where the cache does not fit into it.

    The fraction is of all of the device's memory, and covers what torch allocates: the promise
    less what lies outside of that (the driver's context). It is rounded down.
    """
    options = settle(request.options, model)
    kind = DeviceKind.GPU if request.visible_devices else DeviceKind.HOST
    device = DeviceTraits(kind=kind, model_name="")
    cache = cache_bytes(model, options, device)
    if cache > request.grant_bytes:
        promised, needed = format_size(request.grant_bytes), format_size(cache)
        problem = f"a cache of {needed} is more than the promise of {promised}"
        raise OptionInvalid(field="kv_cache_bytes", problem=problem)
    own = max(request.grant_bytes - overhead_bytes(model, options, device), cache)
    total = max(request.device_bytes or 0, request.grant_bytes, 1)
    return Memory(
        cache_bytes=max(cache, LEAST_CACHE_BYTES),
        utilization=max(own * 10_000 // total, 1) / 10_000,
    )


def arguments(
    program: EngineProgram, words: tuple[str, ...], request: StartRequest, model: HfModel
) -> list[str]:
    """The whole argv; `words` follow the program (`serve`). The options are checked ones.

    Raises OptionInvalid for what this build or this model cannot do.
    """
    options, told = settle(request.options, model), memory(model, request)
    argv = [
        program.path, *words, str(request.model_path),
        "--served-model-name", request.model.id,
        "--host", request.host,
        "--port", str(request.port),
        # Never pickles, which are programs, whatever lies beside the weights.
        "--load-format", "safetensors",
        "--max-model-len", str(options.context_length),
        "--max-num-seqs", str(options.max_num_seqs),
        "--max-num-batched-tokens", str(options.max_num_batched_tokens),
        "--kv-cache-memory-bytes", str(told.cache_bytes),
        "--gpu-memory-utilization", f"{told.utilization:.4f}",
        "--tensor-parallel-size", str(options.tensor_parallel_size),
    ]  # fmt: skip
    argv += _chosen(program, options)
    argv += _served(program, request, model)
    if options.sleep_mode and request.visible_devices:
        argv += _needed(program, "sleep_mode", "--enable-sleep-mode")
    argv += _house_rules(program)
    return [*argv, *check_build(program, request.model.extra_args)]


def _chosen(program: EngineProgram, options: ModelOptions) -> list[str]:
    """Options that are passed on as they are, where they are not vLLM's own default."""
    argv = ["--enforce-eager"] if options.enforce_eager else []
    for field, flag in _PLAIN:
        value = getattr(options, field)
        if value is not None and value != "auto":
            argv += [*_needed(program, field, flag), value]
            known = _CHOICES.search(program.flags[flag])
            if known and value not in known[1].split(","):
                problem = f"{value} is none that {program.path} ({program.version}) knows"
                raise OptionInvalid(field=field, problem=f"{problem}: {known[1]}")
    return argv


_PLAIN: Final = (
    ("dtype", "--dtype"),
    ("quantization", "--quantization"),
    ("kv_cache_dtype", "--kv-cache-dtype"),
)


def _served(program: EngineProgram, request: StartRequest, model: HfModel) -> list[str]:
    """What it answers, beside text. What generates by its architecture is converted."""
    if request.model.kind is ModelKind.RERANK:
        return [*_needed(program, "kind", "--runner"), "pooling"]
    if not (request.options.embedding or request.model.kind is ModelKind.EMBEDDING):
        return []
    argv = [*_needed(program, "embedding", "--runner"), "pooling"]
    if model.architecture.endswith("ForCausalLM"):
        argv += [*_needed(program, "embedding", "--convert"), "embed"]
    return argv


def _house_rules(program: EngineProgram) -> list[str]:
    """What gpud wants of every server, where the build knows it."""
    return [flag for flag in _SWITCHES if flag in program.flags]


# Its output is bounded: a line a request would drive out what it said of its load. There is no
# --shutdown-timeout: with one, a server that nobody uses takes 4 s to end instead of 0.3 s.
_SWITCHES: Final = ("--disable-uvicorn-access-log", "--disable-fastapi-docs")


def _needed(program: EngineProgram, field: str, flag: str) -> list[str]:
    if flag not in program.flags:
        problem = f"{program.path} ({program.version}) has no flag for it ({flag})"
        raise OptionInvalid(field=field, problem=f"{problem}: install a newer vLLM")
    return [flag]


def bare_environment(library_path: str | None, cache: str) -> dict[str, str]:
    """What every run of the program gets, and all it gets. Nothing is told to anybody outside.

    `cache` is where compiled code is kept from one start to the next; `library_path`
    (LD_LIBRARY_PATH) is where CUDA's libraries may be found.
    """
    return {
        **base.bare_environment(library_path),
        "HOME": cache,
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_CACHE_ROOT": cache,
        # Its processes give themselves names, and would write them over their environment, by
        # which gpud knows whose they are.
        "SPT_NOENV": "1",
    }


def environment(request: StartRequest, library_path: str | None, cache: str) -> dict[str, str]:
    """The server's whole environment. The key is in it, since no file can be named for it.

    Its processes meet at sockets in its own folder, which is also the one they run in: a socket's
    path may have 107 bytes, so they are told `.`.
    """
    told = {
        **bare_environment(library_path, cache),
        **base.server_environment(request, library_path),
        "VLLM_RPC_BASE_PATH": ".",
        "VLLM_HOST_IP": request.host,
    }
    if request.key is not None:
        told["VLLM_API_KEY"] = request.key.reveal()
    if request.options.sleep_mode:
        told["VLLM_SERVER_DEV_MODE"] = "1"  # the routes of sleep are of its development mode
    return told
