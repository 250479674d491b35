"""llama.cpp's server: found, started, asked, understood."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpud.engines.api_key import ApiKey
from gpud.engines.counting.counters import Counters
from gpud.engines.engine import (
    Command,
    Covered,
    EngineProgram,
    LoadStep,
    Pulse,
    Readiness,
    StartRequest,
    Warmth,
)
from gpud.engines.llama import command, metrics, options, output
from gpud.engines.probe import Probe, ProbeFailed, asked
from gpud.engines.programs.asking import Asking, ask
from gpud.engines.programs.environment import bare_environment, server_environment
from gpud.errors import EngineMissing
from gpud.models.catalogue import Inspection
from gpud.models.footprint import DeviceTraits, estimate
from gpud.models.host_share import host_share
from gpud.models.model import EngineKind, Footprint, Model, ModelKind, ModelOptions

HELP_LIMIT_SECONDS = 10.0  # a cold start from disk took 0.3 s
HELP_LIMIT_BYTES = 1024 * 1024  # build 11669 prints 60 kB
HEALTH_LIMIT_SECONDS = 1.0
# The whole prompt is 10 tokens or so; the weights may still have to come from a slow disk.
WARM_UP_LIMIT_SECONDS = 300.0
PROBE_LIMIT_SECONDS = 15.0  # one token of an idle server; a card that was asleep wakes in time
WARM_UP_TOKENS = 4
WARM_UP_TEXT = "Say hello."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fingerprint:
    """What tells one build of a program from another at the same place."""

    path: str
    modified_nanoseconds: int
    size_bytes: int


class LlamaCpp:
    """The engine `llama_cpp`. `binary` is a name on PATH or an absolute path."""

    kind = EngineKind.LLAMA_CPP

    def __init__(self, binary: str, probe: Probe) -> None:
        self._binary = binary
        self._probe = probe
        self._known: tuple[_Fingerprint, EngineProgram] | None = None

    async def program(self) -> EngineProgram:
        """The program on this host, its --help read once per (path, mtime, size).

        Raises EngineMissing.
        """
        fingerprint = self._find()
        if self._known is None or self._known[0] != fingerprint:
            self._known = (fingerprint, await self._examine(fingerprint.path))
        return self._known[1]

    async def look(self, model: Model) -> None:
        """Nothing: its program is the engine's, not the entry's."""

    def check_options(self, options_: ModelOptions) -> ModelOptions:
        """The options with this engine's defaults filled in. Raises OptionInvalid."""
        return options.check_options(options_)

    def command(self, program: EngineProgram, request: StartRequest) -> Command:
        """Argv and environment, every element from the allow-list.

        Raises EngineMissing where a key is wanted and this build knows none.
        """
        if request.key_path is not None and command.KEY_FLAG not in program.flags:
            problem = f"its --help does not name {command.KEY_FLAG}"
            raise self._missing(program.path, f"{problem}, which {request.model.name} needs")
        return Command(
            argv=command.arguments(program, request),
            environment=server_environment(request, os.environ.get("LD_LIBRARY_PATH")),
        )

    def can_lock(self, program: EngineProgram) -> bool:
        """Whether this build can lock its model in memory."""
        return bool(command.lock_flags(program.flags))

    def estimate(
        self, inspection: Inspection, options_: ModelOptions, device: DeviceTraits
    ) -> Footprint:
        """The bytes that a load needs on each of its devices, the dearest of them.

        Raises GgufInvalid where the file does not describe a model.
        """
        return estimate(inspection.gguf, options_, device, projector=inspection.projector)

    def host_bytes(
        self, inspection: Inspection, options_: ModelOptions, device: DeviceTraits
    ) -> int:
        """The RAM that it needs beside a card; 0 on the host itself."""
        return host_share(inspection.gguf, options_, device)

    def devices_needed(self, options_: ModelOptions) -> int:
        """As many as shares were named; one where none were."""
        return len(options_.tensor_split or ()) or 1

    def contexts_per_device(self, options_: ModelOptions) -> int:
        """One: a server is one process, and all its slots share the device's context."""
        return 1

    async def readiness(self, endpoint: str) -> Readiness:
        """What the server at `endpoint` says of itself; never raises.

        It listens before it loads, answers 503 to everything meanwhile, then 200 to /health. One
        that takes the connection and says nothing in time counts as loading.
        """
        try:
            answer = await self._probe.get(f"{endpoint}/health", HEALTH_LIMIT_SECONDS)
        except ProbeFailed as failure:
            return Readiness.of_silence(failure)
        said = answer.object
        if answer.status == 200 and said.get("status") == "ok":
            return Readiness.READY
        if answer.status == 503 and said:
            return Readiness.LOADING
        return Readiness.BROKEN

    async def warm_up(
        self, endpoint: str, model: Model, options_: ModelOptions, key: ApiKey | None = None
    ) -> Warmth:
        """Make it produce first tokens (or an embedding). Raises ProbeFailed."""
        request = _first_request(model, embedding=bool(options_.embedding), tokens=WARM_UP_TOKENS)
        answer = await asked(self._probe, endpoint, request, WARM_UP_LIMIT_SECONDS, key)
        return _warmth(answer.object.get("timings"))

    async def probe(
        self, endpoint: str, model: Model, options_: ModelOptions, key: ApiKey | None = None
    ) -> None:
        """Have it produce one token (or an embedding), when it is idle. Raises ProbeFailed."""
        embedding = bool(options_.embedding)
        request = _first_request(model, embedding=embedding, tokens=1)
        if request[0].endswith("/completions"):
            # The first token of its vocabulary, without a template around it.
            request = "/completion", {"prompt": [0], "n_predict": 1, "cache_prompt": False}
        await asked(self._probe, endpoint, request, PROBE_LIMIT_SECONDS, key)

    async def pulse(self, endpoint: str, key: ApiKey | None = None) -> Pulse | None:
        """What its counters say; asking for them does not wake a server that sleeps."""
        try:
            told = metrics.pulse(await self._metrics(endpoint, key))
        except ProbeFailed:
            return None
        return replace(told, sleeping=not told.running and await self._is_sleeping(endpoint, key))

    async def counters(self, endpoint: str, key: ApiKey | None = None) -> Counters:
        """All that it counts; asking does not wake a server that sleeps. Raises ProbeFailed."""
        return metrics.counters(await self._metrics(endpoint, key))

    async def _metrics(self, endpoint: str, key: ApiKey | None) -> str:
        url = f"{endpoint}/metrics"
        return (await self._probe.get(url, HEALTH_LIMIT_SECONDS, key)).granted(url).text

    async def _is_sleeping(self, endpoint: str, key: ApiKey | None) -> bool:
        """Whether it has let its weights go; builds that cannot do not tell. Wakes nobody."""
        try:
            answer = await self._probe.get(f"{endpoint}/props", HEALTH_LIMIT_SECONDS, key)
        except ProbeFailed:
            return False
        return answer.object.get("is_sleeping") is True

    async def in_flight(self, endpoint: str, key: ApiKey | None = None) -> int | None:
        """Requests being served or waiting for a slot; None: it does not tell. Never raises."""
        try:
            return metrics.pulse(await self._metrics(endpoint, key)).in_flight
        except ProbeFailed:
            return None

    def measured_bytes(self, output_: tuple[str, ...]) -> int | None:
        """What the engine says that it allocated; None: its output does not tell."""
        told = self.covered(output_)
        return None if told is None else told.bytes

    def covered(self, output_: tuple[str, ...]) -> Covered | None:
        """The items whose lines came: a build may word one otherwise, a full disk drop it."""
        return output.covered(output.parse_buffers(output_))

    def load_step(self, output_tail: tuple[str, ...]) -> LoadStep:
        """How far the load is, by its last output; in words its readiness tells it."""
        return LoadStep(fraction=output.load_fraction(output_tail))

    def hopeless(self, output_tail: tuple[str, ...]) -> str:
        """Nothing: one that cannot load ends."""
        return ""

    def explain_exit(self, output_tail: tuple[str, ...]) -> str:
        """What the last lines mean, in a few words; empty when they say nothing known."""
        return output.explain_exit(output_tail)

    def _find(self) -> _Fingerprint:
        try:
            return self._look()
        except OSError as error:  # a folder that we may not enter, a file replaced just now
            raise self._missing(self._binary, (error.strerror or str(error)).lower()) from error

    def _look(self) -> _Fingerprint:
        path = shutil.which(self._binary)
        if path is None:
            given = Path(self._binary)
            problem = "not on PATH" if given.name == self._binary else "no such file"
            if given.is_file() and given.name != self._binary:
                problem = "not executable"
            raise self._missing(self._binary, problem)
        # Absolute, because the shim executes it in another directory.
        absolute = str(Path(path).absolute())
        stat = Path(absolute).stat()
        return _Fingerprint(
            path=absolute, modified_nanoseconds=stat.st_mtime_ns, size_bytes=stat.st_size
        )

    async def _examine(self, path: str) -> EngineProgram:
        flags = command.read_flags(await self._output_of(path, "--help"))
        lacking = [flag for flag in command.NEEDED_FLAGS if flag not in flags]
        if lacking:
            raise self._missing(
                path, f"not a llama-server: its --help does not name {', '.join(lacking)}"
            )
        version = command.read_version(await self._output_of(path, "--version"))
        return EngineProgram(kind=self.kind, path=path, version=version, flags=flags)

    async def _output_of(self, path: str, question: str) -> str:
        """What it prints when asked, stderr too. Raises EngineMissing: it hangs, or cannot run."""
        asking = Asking(
            environment=bare_environment(os.environ.get("LD_LIBRARY_PATH")),
            limit_seconds=HELP_LIMIT_SECONDS,
            limit_bytes=HELP_LIMIT_BYTES,
            with_stderr=True,
        )
        try:
            return await ask((path, question), asking)
        except TimeoutError:
            problem = f"gives no end of {question} within {HELP_LIMIT_SECONDS:g} s"
            raise self._missing(path, problem) from None
        except OSError as error:
            raise self._missing(path, f"cannot be executed: {error.strerror}") from error

    def _missing(self, program: str, problem: str) -> EngineMissing:
        return EngineMissing(engine=self.kind.value, program=program, problem=problem)


def _first_request(model: Model, *, embedding: bool, tokens: int) -> tuple[str, dict[str, Any]]:
    """Path and body of a small request of the kind that the model is for."""
    if model.kind is ModelKind.RERANK:
        return "/v1/rerank", {"query": WARM_UP_TEXT, "documents": [WARM_UP_TEXT]}
    if embedding or model.kind is ModelKind.EMBEDDING:
        # Not /v1/embeddings: that refuses models which pool nothing.
        return "/embedding", {"content": WARM_UP_TEXT}
    # Without an end of text, so that the speed is one of all the tokens asked for.
    length = {"max_tokens": tokens, "ignore_eos": True, "cache_prompt": False}
    if model.kind is ModelKind.COMPLETION:
        return "/v1/completions", {"prompt": WARM_UP_TEXT, **length}
    messages = [{"role": "user", "content": WARM_UP_TEXT}]
    return "/v1/chat/completions", {"messages": messages, **length}


def _warmth(timings: Any) -> Warmth:
    """From the server's own timings: the first token comes at the end of the prompt."""
    known: Mapping[str, Any] = timings if isinstance(timings, dict) else {}
    speed, prompt = known.get("predicted_per_second"), known.get("prompt_ms")
    counted = isinstance(known.get("predicted_n"), int) and known["predicted_n"] > 1
    return Warmth(
        tokens_per_second=float(speed) if counted and isinstance(speed, int | float) else None,
        time_to_first_token_seconds=prompt / 1000 if isinstance(prompt, int | float) else None,
    )
