"""vLLM's server: found, started, asked, understood, sent to sleep."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

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
from gpud.engines.probe import Probe, ProbeFailed, asked
from gpud.engines.vllm import command, metrics, options, output, starting
from gpud.engines.vllm.program import Programs
from gpud.models.catalogue import Inspection
from gpud.models.footprint import DeviceTraits
from gpud.models.hugging_face import footprint
from gpud.models.hugging_face.config import HfModel
from gpud.models.hugging_face.safetensors import SafetensorsInvalid
from gpud.models.model import EngineKind, Footprint, Model, ModelKind, ModelOptions

HEALTH_LIMIT_SECONDS: Final = 1.0
METRICS_LIMIT_SECONDS: Final = 2.0  # 50 kB of text, made by the loop that serves requests too
# The first request may compile what no start did.
WARM_UP_LIMIT_SECONDS: Final = 300.0
PROBE_LIMIT_SECONDS: Final = 15.0
SLEEP_LIMIT_SECONDS: Final = 120.0  # weights go to RAM, or come back from it
WARM_UP_TOKENS: Final = 4
WARM_UP_TEXT: Final = "Say hello."
# A whole step is tried where its first tokens say that it takes no longer than this. They say
# too much rather than too little: a short prompt costs as much as one of a hundred tokens.
FILL_LIMIT_SECONDS: Final = 20.0
FILL_TOKEN: Final = 5  # any number that every vocabulary has


class Vllm:
    """The engine `vllm`. `words` are the command: the program, and what follows it (`serve`).

    `folder` is its own in the state directory: what was read of its --help, and compiled code.
    """

    kind = EngineKind.VLLM

    def __init__(self, words: Sequence[str], folder: Path, probe: Probe) -> None:
        self._words = tuple(words)
        self._folder = folder
        self._programs = Programs(self._words, folder)
        self._probe = probe

    async def program(self) -> EngineProgram:
        """The program on this host, its --help read once for each build. Raises EngineMissing."""
        return await self._programs.find()

    async def look(self, model: Model) -> None:
        """Nothing: its program is the engine's, not the entry's."""

    def check_options(self, options_: ModelOptions) -> ModelOptions:
        """The options with this engine's defaults filled in. Raises OptionInvalid."""
        return options.check_options(options_)

    def command(self, program: EngineProgram, request: StartRequest) -> Command:
        """Argv and environment, every element from the allow-list. Raises OptionInvalid."""
        model = _model(request.inspection)
        cache, library_path = str(self._folder), os.environ.get("LD_LIBRARY_PATH")
        environment = command.environment(request, library_path, cache)
        return Command(
            argv=tuple(command.arguments(program, self._words[1:], request, model)),
            environment=environment,
            own_names=command.OWN_NAMES,
        )

    def can_lock(self, program: EngineProgram) -> bool:
        """It cannot lock its memory."""
        return False

    def estimate(
        self, inspection: Inspection, options_: ModelOptions, device: DeviceTraits
    ) -> Footprint:
        """The bytes that a load needs on each of its devices.

        Raises SafetensorsInvalid for what is no folder of a model, OptionInvalid.
        """
        model = _model(inspection)
        return footprint.estimate(model, options.settle(options_, model), device)

    def host_bytes(
        self, inspection: Inspection, options_: ModelOptions, device: DeviceTraits
    ) -> int:
        """The RAM that its processes need beside a card; 0 on the host itself."""
        model = _model(inspection)
        return footprint.host_bytes(model, options.settle(options_, model), device)

    def devices_needed(self, options_: ModelOptions) -> int:
        """As many as its ranks."""
        return options_.tensor_parallel_size or 1

    def contexts_per_device(self, options_: ModelOptions) -> int:
        """One: only the worker of a rank opens its device."""
        return 1

    async def readiness(self, endpoint: str) -> Readiness:
        """What the server at `endpoint` says of itself; never raises.

        It listens only once it is ready; 503 is a server whose engine core died, which will end.
        """
        try:
            answer = await self._probe.get(f"{endpoint}/health", HEALTH_LIMIT_SECONDS)
        except ProbeFailed as failure:
            return Readiness.of_silence(failure)
        return Readiness.READY if answer.status == 200 else Readiness.BROKEN

    async def warm_up(
        self, endpoint: str, model: Model, options_: ModelOptions, key: ApiKey | None = None
    ) -> Warmth:
        """Make it produce first tokens (or an embedding). Raises ProbeFailed.

        An answer has no times in it, so they are what the server's own sums grew by.
        """
        before = await self._speed(endpoint, key)
        request = _request(model, embedding=bool(options_.embedding), tokens=WARM_UP_TOKENS)
        answer = await asked(self._probe, endpoint, request, WARM_UP_LIMIT_SECONDS, key)
        warmth = metrics.warmth(before, await self._speed(endpoint, key))
        first = warmth.time_to_first_token_seconds
        prompt = output.prompt_tokens(answer.object)
        step = options_.max_num_batched_tokens or 0
        if first is not None and prompt and step * first / prompt <= FILL_LIMIT_SECONDS:
            await self._fill(endpoint, model, step, key)
        return warmth

    async def _fill(self, endpoint: str, model: Model, step: int, key: ApiKey | None) -> None:
        """One step with as many tokens as it may ever have.

        What memory that takes is then taken: a load that lacks it fails now rather than at the
        first long prompt, and what is measured of it is the whole. Raises ProbeFailed.
        """
        listed = await self._probe.get(f"{endpoint}/v1/models", METRICS_LIMIT_SECONDS, key)
        room = output.longest_prompt(listed.object) - 1
        if min(step, room) < 1:
            return
        body = {"model": model.id, "prompt": [FILL_TOKEN] * min(step, room), "max_tokens": 1}
        url = f"{endpoint}/v1/completions"
        answer = await self._probe.post_json(url, body, WARM_UP_LIMIT_SECONDS, key)
        if answer.status >= 500:  # one that takes no such prompt says 400, and is none the worse
            answer.granted(url)

    async def probe(
        self, endpoint: str, model: Model, options_: ModelOptions, key: ApiKey | None = None
    ) -> None:
        """Have it produce one token (or an embedding), when it is idle. Raises ProbeFailed."""
        request = _request(model, embedding=bool(options_.embedding), tokens=1)
        await asked(self._probe, endpoint, request, PROBE_LIMIT_SECONDS, key)

    async def pulse(self, endpoint: str, key: ApiKey | None = None) -> Pulse | None:
        """What its counters say; asking for them does not wake a server that sleeps."""
        told = await self._metrics(endpoint, key)
        return None if told is None else metrics.pulse(told)

    async def counters(self, endpoint: str, key: ApiKey | None = None) -> Counters:
        """All that it counts; asking does not wake a server that sleeps. Raises ProbeFailed."""
        return metrics.counters(await self._asked(endpoint, key))

    async def in_flight(self, endpoint: str, key: ApiKey | None = None) -> int | None:
        """Requests being served or waiting; None: it does not tell. Never raises."""
        pulse = await self.pulse(endpoint, key)
        return None if pulse is None else pulse.in_flight

    async def sleep(self, endpoint: str, level: int, key: ApiKey | None = None) -> None:
        """Send it to sleep: at level 1 its weights go to RAM, at level 2 they are forgotten.

        Only a server that was loaded with `sleep_mode` can. On a CPU it says that it sleeps, and
        frees nothing. Raises ProbeFailed.
        """
        url = f"{endpoint}/sleep?level={level}"
        (await self._probe.post_json(url, {}, SLEEP_LIMIT_SECONDS, key)).granted(url)

    async def wake(self, endpoint: str, key: ApiKey | None = None, level: int = 1) -> None:
        """Wake it; it serves as before once this returns. Raises ProbeFailed.

        After level 2 there is room for its weights again, but nothing in it: they are read from
        their files (vLLM, "Sleep Mode").
        """
        steps: list[tuple[str, dict[str, str]]] = [("/wake_up", {})]
        if level > 1:
            steps = [
                ("/wake_up?tags=weights", {}),
                ("/collective_rpc", {"method": "reload_weights"}),
                ("/wake_up", {}),
            ]
        for path, body in steps:
            url = endpoint + path
            (await self._probe.post_json(url, body, SLEEP_LIMIT_SECONDS, key)).granted(url)

    async def is_sleeping(self, endpoint: str, key: ApiKey | None = None) -> bool | None:
        """Whether it sleeps; None: it was not loaded with `sleep_mode`, or does not answer."""
        try:
            answer = await self._probe.get(f"{endpoint}/is_sleeping", HEALTH_LIMIT_SECONDS, key)
        except ProbeFailed:
            return None
        said = answer.object.get("is_sleeping") if answer.status == 200 else None
        return said if isinstance(said, bool) else None

    async def cache_config(self, endpoint: str, key: ApiKey | None = None) -> dict[str, str]:
        """What it says of its cache; empty where it does not answer. Never raises."""
        return metrics.cache_config(await self._metrics(endpoint, key) or "")

    def measured_bytes(self, output_: tuple[str, ...]) -> int | None:
        """What the engine says that it allocated; None: its output does not tell."""
        return output.measured_bytes(output_)

    def covered(self, output_: tuple[str, ...]) -> Covered | None:
        """Which items of its footprint that tells whole; None: none."""
        return output.covered(output_)

    def load_step(self, output_tail: tuple[str, ...]) -> LoadStep:
        """What it does and how far the load is, by its last output."""
        return starting.load_step(output_tail)

    def hopeless(self, output_tail: tuple[str, ...]) -> str:
        """Why it will never be ready though it still runs, as its last output says; else empty."""
        return output.hopeless(output_tail)

    def explain_exit(self, output_tail: tuple[str, ...]) -> str:
        """What the last lines mean, in a few words; empty when they say nothing known."""
        return output.explain_exit(output_tail)

    async def _metrics(self, endpoint: str, key: ApiKey | None) -> str | None:
        try:
            return await self._asked(endpoint, key)
        except ProbeFailed:
            return None

    async def _asked(self, endpoint: str, key: ApiKey | None) -> str:
        url = f"{endpoint}/metrics"
        return (await self._probe.get(url, METRICS_LIMIT_SECONDS, key)).granted(url).text

    async def _speed(self, endpoint: str, key: ApiKey | None) -> metrics.Speed | None:
        return metrics.speed(await self._metrics(endpoint, key) or "")


def _model(inspection: Inspection | None) -> HfModel:
    if inspection is None or inspection.hf is None:
        raise SafetensorsInvalid("is no folder with a config.json and safetensors")
    return inspection.hf


def _request(model: Model, *, embedding: bool, tokens: int) -> tuple[str, dict[str, Any]]:
    """Path and body of a small request of the kind that the model is for."""
    if model.kind is ModelKind.RERANK:
        asked = {"query": WARM_UP_TEXT, "documents": [WARM_UP_TEXT]}
        return "/v1/rerank", {"model": model.id, **asked}
    if embedding or model.kind is ModelKind.EMBEDDING:
        return "/v1/embeddings", {"model": model.id, "input": WARM_UP_TEXT}
    # Without an end of text, so that the speed is one of all the tokens asked for.
    length = {"model": model.id, "max_tokens": tokens, "ignore_eos": True}
    if model.kind is ModelKind.COMPLETION:
        return "/v1/completions", {"prompt": WARM_UP_TEXT, **length}
    messages = [{"role": "user", "content": WARM_UP_TEXT}]
    return "/v1/chat/completions", {"messages": messages, **length}
