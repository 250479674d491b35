"""Pure: llama-server's command line: its --help read, argv made.

Builds differ: flags come and go, change their form and their default. So a flag is passed only
where --help names it, in the form that --help gives it, and nothing is left to a default that
would take memory nobody promised.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from gpud.engines.engine import EngineProgram, StartRequest
from gpud.engines.llama.options import QUANTIZED_CACHE_TYPES
from gpud.engines.options.extra_args import check_build
from gpud.errors import OptionInvalid
from gpud.models.model import ModelKind, ModelOptions
from gpud.units import MIB

NEEDED_FLAGS = ("--model", "--ctx-size", "--port", "--parallel")
KEY_FLAG = "--api-key-file"
ALL_LAYERS = 9999  # a number, because old builds know no "all"

_LONG_FLAG = re.compile(r"--[a-z0-9][a-z0-9-]*")
_VERSION = re.compile(r"^version: (.+)$", re.MULTILINE)


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


def arguments(program: EngineProgram, request: StartRequest) -> tuple[str, ...]:
    """The whole argv. The options are complete, as `check_options` returns them.

    Raises OptionInvalid for an option that this build has no flag for.
    """
    build, options = _Build(program), request.options
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
    argv += _flash_attention(build, options)
    argv += _placement(build, request)
    for field, flag in _PLAIN:
        value = getattr(options, field)
        argv += build.needed(field, flag, str(value)) if value is not None else []
    argv += _slots(build, options)
    argv += _served(build, request)
    argv += _load_mode(build, options, lock=request.lock_memory)
    if request.mmproj_path is not None:
        argv += build.needed("mmproj", "--mmproj", str(request.mmproj_path))
    if request.key_path is not None:
        argv += [KEY_FLAG, str(request.key_path)]
    argv += _house_rules(build, options)
    return tuple(argv) + check_build(program, request.model.extra_args)


# Options that are passed on as they are, where they were said.
_PLAIN: Final = (
    ("threads", "--threads"),
    ("threads_batch", "--threads-batch"),
    ("cache_reuse", "--cache-reuse"),
    ("pooling", "--pooling"),
)


@dataclass(frozen=True, slots=True)
class _Build:
    """The flags of one program, and how it is told of those that it lacks."""

    program: EngineProgram

    def knows(self, flag: str) -> bool:
        return flag in self.program.flags

    def text(self, flag: str) -> str:
        """What --help says of it; empty for a flag that it does not name."""
        return self.program.flags.get(flag, "")

    def first(self, *flags: str) -> list[str]:
        """The first of these names that the build knows, if any."""
        return [flag for flag in flags if self.knows(flag)][:1]

    def if_known(self, flag: str, value: str) -> list[str]:
        """The flag and its value, if the build knows it."""
        return [flag, value] if self.knows(flag) else []

    def needed(self, field: str, flag: str, value: str) -> list[str]:
        """The flag and its value. Raises OptionInvalid where the build lacks it."""
        return [*self.needed_first(field, flag), value]

    def needed_first(self, field: str, *flags: str) -> list[str]:
        """The first of these names that the build knows. Raises OptionInvalid if none."""
        found = self.first(*flags)
        if not found:
            raise self.lacks(field)
        return found

    def lacks(self, field: str) -> OptionInvalid:
        """The refusal of an option that only other builds have."""
        problem = f"{self.program.path} ({self.program.version}) has no flag for it"
        advice = "leave the option out, or install a build of llama.cpp that has it"
        return OptionInvalid(field=field, problem=f"{problem}: {advice}")


def _flash_attention(build: _Build, options: ModelOptions) -> list[str]:
    """A choice of three in newer builds, a switch that is off by default in older ones."""
    if "|auto" in build.text("--flash-attn"):
        return ["--flash-attn", str(options.flash_attention)]
    if options.flash_attention == "on":
        return build.needed_first("flash_attention", "--flash-attn")
    if options.cache_type_v in QUANTIZED_CACHE_TYPES:
        return build.needed_first("cache_type_v", "--flash-attn")
    return []


def _placement(build: _Build, request: StartRequest) -> list[str]:
    """Which layers lie on which device; on the host alone: none, and no device is even opened."""
    options, on_cards = request.options, bool(request.visible_devices)
    if not on_cards:
        return build.if_known("--n-gpu-layers", "0") + build.if_known("--device", "none")
    layers = str(ALL_LAYERS if options.gpu_layers is None else options.gpu_layers)
    if options.gpu_layers is None:
        placement = build.if_known("--n-gpu-layers", layers)
    else:
        placement = build.needed("gpu_layers", "--n-gpu-layers", layers)
    if options.split_mode is not None:
        placement += build.needed("split_mode", "--split-mode", options.split_mode)
    if options.tensor_split is not None:
        shares = ",".join(_decimal(share) for share in options.tensor_split)
        placement += build.needed("tensor_split", "--tensor-split", shares)
    return placement


def _decimal(share: float) -> str:
    """Without an exponent, whatever its size; the range of shares needs no more digits."""
    return f"{share:.3f}".rstrip("0").rstrip(".")


def _slots(build: _Build, options: ModelOptions) -> list[str]:
    """How the slots share a cache, and a batch. What a build does by default needs no flag."""
    if options.kv_unified:
        flags = build.needed_first("kv_unified", "--kv-unified")
    else:
        flags = build.first("--no-kv-unified")
    if options.continuous_batching:
        # Every build does so by default; some have only the flag against it.
        flags += build.first("--cont-batching")
    elif options.continuous_batching is not None:
        flags += build.needed_first("continuous_batching", "--no-cont-batching")
    if options.sleep_idle_seconds:
        seconds = str(options.sleep_idle_seconds)
        flags += build.needed("sleep_idle_seconds", "--sleep-idle-seconds", seconds)
    return flags


def _served(build: _Build, request: StartRequest) -> list[str]:
    """What it answers, beside text."""
    if request.model.kind is ModelKind.RERANK:
        return build.needed_first("kind", "--reranking", "--rerank")
    if request.options.embedding or request.model.kind is ModelKind.EMBEDDING:
        return build.needed_first("embedding", "--embedding", "--embeddings")
    return []


def lock_flags(known: Mapping[str, str]) -> list[str]:
    """Mapped, and locked as it is mapped: a switch in older builds, a mode in newer ones.

    Mapped, so that instances of one model share its pages. None: the build knows neither.
    """
    if "mmap+mlock" in known.get("--load-mode", ""):
        return ["--load-mode", "mmap+mlock"]
    return [flag for flag in ("--mlock",) if flag in known]


def _load_mode(build: _Build, options: ModelOptions, *, lock: bool) -> list[str]:
    """How the weights come into memory: one mode in newer builds, two switches in older ones.

    `lock` is the policy that instances do not swap, which `mlock = false` does not lift.
    """
    locked = lock or bool(options.mlock)
    if build.knows("--load-mode"):
        return _newer_load_mode(build, options, locked=locked)
    flags = build.first("--mlock") if locked else []
    if options.mlock and not flags:
        raise build.lacks("mlock")
    if options.mmap is False:
        flags += build.needed_first("mmap", "--no-mmap")
    return flags


def _newer_load_mode(build: _Build, options: ModelOptions, *, locked: bool) -> list[str]:
    if options.mmap is None and not locked:
        return []  # as the build does by default
    mapped = options.mmap is not False
    mode = _LOAD_MODES[locked, mapped]
    # Whole words: "mlock" also stands within "mmap+mlock".
    if re.search(rf"(?<![\w+]){re.escape(mode)}(?![\w+])", build.text("--load-mode")):
        return ["--load-mode", mode]
    if locked and not options.mlock:  # the policy's wish alone; the instance tells it was not met
        return _newer_load_mode(build, options, locked=False)
    raise build.lacks("mmap" if options.mmap is not None else "mlock")


# (locked, mapped) → the mode's name.
_LOAD_MODES: Final = {
    (True, True): "mmap+mlock",
    (True, False): "mlock",
    (False, True): "mmap",
    (False, False): "none",
}


def _house_rules(build: _Build, options: ModelOptions) -> list[str]:
    """What gpud wants of every server, where the build knows it."""
    rules = build.if_known("--fit", "off")  # it would change what the promise was made for
    if options.cache_ram_bytes:
        mib = -(-options.cache_ram_bytes // MIB)
        rules += build.needed("cache_ram_bytes", "--cache-ram", str(mib))
    else:
        rules += build.if_known("--cache-ram", "0")  # 8 GiB of host memory by default
    # Up to 32 copies a slot of a windowed or recurrent model's state, in host memory.
    rules += build.if_known("--ctx-checkpoints", "0")
    rules += build.first("--metrics")
    # So that gpud may listen beside it and turn new requests away while it is unloaded.
    rules += build.first("--reuse-port")
    rules += build.first("--no-ui", "--no-webui")
    rules += build.first("--offline")
    if "trace" in build.text("--verbosity"):
        # The level at which it tells the size of its buffers: 11 kB at the start and 2 kB a
        # request, without any prompt. Builds without that level tell them by default.
        rules += ["--verbosity", "4"]
    return rules
