"""Pure: llama-server's command line: its --help read, options checked, argv and environment made.

Builds differ: flags come and go, change their form and their default. So a flag is passed only
where --help names it, in the form that --help gives it, and nothing is left to a default that
would take memory nobody promised.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import takewhile

from gpud.engines.engine import EngineProgram, StartRequest
from gpud.errors import OptionInvalid
from gpud.models.model import ModelKind, ModelOptions

NEEDED_FLAGS = ("--model", "--ctx-size", "--port", "--parallel")
KEY_FLAG = "--api-key-file"

DEFAULTS = ModelOptions(
    context_length=4096,
    parallel=1,
    batch=2048,
    ubatch=512,
    cache_type_k="f16",
    cache_type_v="f16",
    flash_attention="auto",
    kv_unified=False,
    embedding=False,
)
# Least and most; wide enough for any model, narrow enough that no product overflows.
RANGES = {
    "context_length": (1, 2**24),
    "parallel": (1, 256),
    "batch": (1, 2**16),
    "ubatch": (1, 2**16),
    "gpu_layers": (0, 9999),
    "threads": (1, 1024),
}
PLAIN_CACHE_TYPES = ("f32", "f16", "bf16")
QUANTIZED_CACHE_TYPES = ("q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
FLASH_ATTENTION = ("on", "off", "auto")
ALL_LAYERS = 9999  # a number, because old builds know no "all"

_LONG_FLAG = re.compile(r"--[a-z0-9][a-z0-9-]*")
_VERSION = re.compile(r"^version: (.+)$", re.MULTILINE)
# An empty part of a library path would be the engine's own folder, which it may write to.
_FOLDER = re.compile(r"/[\w.+@=,~/ -]*")


def read_flags(help_text: str) -> dict[str, str]:
    """Each long flag that begins an entry of --help, with the entry's own text."""
    entries: list[tuple[list[str], list[str]]] = []
    for line in help_text.splitlines():
        words = line.split()
        if line.startswith("-"):
            # `-np,   --parallel N      number of …`: the flags end where the value begins.
            names = takewhile(lambda word: word.startswith("-"), words)
            entries.append(([name.rstrip(",") for name in names], words))
        elif entries:
            entries[-1][1].extend(words)
    return {
        name: " ".join(words)
        for names, words in entries
        for name in names
        if _LONG_FLAG.fullmatch(name)
    }


def read_version(text: str) -> str:
    """`0.7.0 (build 11669, commit Debian)`; "unknown" where it does not tell."""
    match = _VERSION.search(text)
    return match[1].strip() if match else "unknown"


def check_options(options: ModelOptions) -> ModelOptions:
    """The options with the defaults filled in. Raises OptionInvalid naming the field."""
    checked = options.over(DEFAULTS)
    for field, (least, most) in RANGES.items():
        value = getattr(checked, field)
        if value is not None and not least <= value <= most:
            raise OptionInvalid(field=field, problem=f"{value} is not between {least} and {most}")
    cache_types = PLAIN_CACHE_TYPES + QUANTIZED_CACHE_TYPES
    _check_choice(checked, "cache_type_k", cache_types)
    _check_choice(checked, "cache_type_v", cache_types)
    _check_choice(checked, "flash_attention", FLASH_ATTENTION)
    _check_together(checked)
    return checked


def _check_choice(options: ModelOptions, field: str, choices: tuple[str, ...]) -> None:
    value = getattr(options, field)
    if value not in choices:
        raise OptionInvalid(field=field, problem=f"{value!r} is not one of {', '.join(choices)}")


def _check_together(options: ModelOptions) -> None:
    """What is allowed by itself, but not with the rest."""
    context, slots = options.context_length or 0, options.parallel or 1
    batch, ubatch = options.batch or 0, options.ubatch or 0
    if ubatch > batch:
        raise OptionInvalid(field="ubatch", problem=f"{ubatch} is more than batch, {batch}")
    if context < slots:
        raise OptionInvalid(
            field="context_length", problem=f"{context} tokens are none for some of {slots} slots"
        )
    if options.cache_type_v in QUANTIZED_CACHE_TYPES and options.flash_attention == "off":
        raise OptionInvalid(
            field="cache_type_v",
            problem=f"{options.cache_type_v} needs flash_attention to be on or auto",
        )


def arguments(program: EngineProgram, request: StartRequest) -> tuple[str, ...]:
    """The whole argv. The options are complete, as `check_options` returns them."""
    known, options = program.flags, request.options
    argv = [
        program.path,
        "--model", str(request.model_path),
        "--alias", request.model.id,
        "--host", request.host,
        "--port", str(request.port),
        "--ctx-size", str(options.context_length),
        "--parallel", str(options.parallel),
        "--batch-size", str(options.batch),
        "--ubatch-size", str(options.ubatch),
        "--cache-type-k", str(options.cache_type_k),
        "--cache-type-v", str(options.cache_type_v),
    ]  # fmt: skip
    argv += _flash_attention(known, options)
    argv += _placement(known, request)
    if options.threads is not None:
        argv += ["--threads", str(options.threads)]
    # Older builds share one cache among all slots and have no flag for it.
    argv += _first_known(known, "--kv-unified" if options.kv_unified else "--no-kv-unified")
    if request.model.kind is ModelKind.RERANK:
        argv += _first_known(known, "--reranking", "--rerank")
    elif options.embedding or request.model.kind is ModelKind.EMBEDDING:
        argv += _first_known(known, "--embedding", "--embeddings")
    if request.lock_memory:
        argv += lock_flags(known)
    if request.key_path is not None:
        argv += [KEY_FLAG, str(request.key_path)]
    return tuple(argv + _house_rules(known))


def lock_flags(known: Mapping[str, str]) -> list[str]:
    """Mapped, and locked as it is mapped: a switch in older builds, a mode in newer ones.

    Mapped, so that instances of one model share its pages. None: the build knows neither.
    """
    if "mmap+mlock" in known.get("--load-mode", ""):
        return ["--load-mode", "mmap+mlock"]
    return _first_known(known, "--mlock")


def _flash_attention(known: Mapping[str, str], options: ModelOptions) -> list[str]:
    """A choice of three in newer builds, a switch that is off by default in older ones."""
    if "|auto" in known.get("--flash-attn", ""):
        return ["--flash-attn", str(options.flash_attention)]
    quantized = options.cache_type_v in QUANTIZED_CACHE_TYPES
    wanted = options.flash_attention == "on" or quantized
    return _first_known(known, "--flash-attn") if wanted else []


def _placement(known: Mapping[str, str], request: StartRequest) -> list[str]:
    """Which layers lie on the devices; on the host alone: none, and no device is even opened."""
    asked = request.options.gpu_layers
    layers = ALL_LAYERS if asked is None else asked
    if not request.visible_devices:
        layers = 0
    placement = _with_value(known, "--n-gpu-layers", str(layers))
    if not request.visible_devices:
        placement += _with_value(known, "--device", "none")
    return placement


def _house_rules(known: Mapping[str, str]) -> list[str]:
    """What gpud wants of every server, where the build knows it."""
    rules = _with_value(known, "--fit", "off")  # it would change what the promise was made for
    rules += _with_value(known, "--cache-ram", "0")  # 8 GiB of host memory by default
    # Up to 32 copies a slot of a windowed or recurrent model's state, in host memory.
    rules += _with_value(known, "--ctx-checkpoints", "0")
    rules += _first_known(known, "--metrics")
    rules += _first_known(known, "--no-ui", "--no-webui")
    rules += _first_known(known, "--offline")
    if "trace" in known.get("--verbosity", ""):
        # The level at which it tells the size of its buffers: 11 kB at the start and 2 kB a
        # request, without any prompt. Builds without that level tell them by default.
        rules += ["--verbosity", "4"]
    return rules


def _first_known(known: Mapping[str, str], *flags: str) -> list[str]:
    """The first of these names that the build knows, if any."""
    return [flag for flag in flags if flag in known][:1]


def _with_value(known: Mapping[str, str], flag: str, value: str) -> list[str]:
    """The flag and its value, if the build knows it."""
    return [flag, value] if flag in known else []


def bare_environment(library_path: str | None) -> dict[str, str]:
    """What every run of the program gets, and all it gets: no LLAMA_ARG_* is inherited.

    `library_path` (LD_LIBRARY_PATH) is where a CUDA build may find its libraries; what in it is
    not an absolute folder is left out.
    """
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
    folders = [part for part in (library_path or "").split(":") if _FOLDER.fullmatch(part)]
    if folders:
        environment["LD_LIBRARY_PATH"] = ":".join(folders)
    return environment


def environment(request: StartRequest, library_path: str | None) -> dict[str, str]:
    """The server's whole environment; its own folder is all that it may write to."""
    own = str(request.directory)
    return {
        **bare_environment(library_path),
        "HOME": own,
        "TMPDIR": own,
        "CUDA_VISIBLE_DEVICES": ",".join(request.visible_devices),
    }
