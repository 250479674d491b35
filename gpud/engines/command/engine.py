"""Any server, as the configuration of this host tells how to run and to ask it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from gpud.engines.api_key import ApiKey
from gpud.engines.command import metrics, sizes, spec
from gpud.engines.command.program import Looks, ProgramRefused
from gpud.engines.command.requests import explain_exit, first_request
from gpud.engines.counting.counters import Counters
from gpud.engines.engine import (
    Command,
    EngineProgram,
    LoadStep,
    Pulse,
    Readiness,
    StartRequest,
    Warmth,
)
from gpud.engines.options.ownership import refuse_others
from gpud.engines.probe import Probe, ProbeFailed
from gpud.engines.programs.environment import server_environment
from gpud.models.catalogue import Inspection
from gpud.models.footprint import DeviceTraits
from gpud.models.model import CommandSpec, EngineKind, Footprint, Model, ModelOptions

HEALTH_LIMIT_SECONDS: Final = 1.0
WARM_UP_LIMIT_SECONDS: Final = 300.0
PROBE_LIMIT_SECONDS: Final = 15.0
WARM_UP_TOKENS: Final = 4
# What a server answers while it comes up, where it answers before it is ready.
_NOT_YET: Final = frozenset({404, 425, 429, 500, 502, 503, 504})

# The entry of the server at an endpoint; None: it has left the configuration.
SpecAt = Callable[[str], CommandSpec | None]


class CommandEngine:
    """The engine `command`: what runs, and how it is asked, is told by each model's entry."""

    kind = EngineKind.COMMAND

    def __init__(self, probe: Probe, spec_at: SpecAt) -> None:
        self._probe = probe
        self._spec_at = spec_at
        self._looks = Looks()

    async def program(self) -> EngineProgram:
        """No program of its own: each entry names one."""
        return EngineProgram(kind=self.kind, path="", version="of the configuration", flags={})

    async def look(self, model: Model) -> None:
        """Whether its program may be executed. Raises ProgramRefused."""
        await self._looks.check(_spec(model).argv[0])

    def check_options(self, options: ModelOptions) -> ModelOptions:
        """None are a command's: they stand in its argv. Raises OptionInvalid for any."""
        refuse_others(options, self.kind)
        return options

    def command(self, program: EngineProgram, request: StartRequest) -> Command:
        """Argv and environment as the entry says them. Raises ProgramRefused."""
        told = _spec(request.model)
        base = server_environment(request, os.environ.get("LD_LIBRARY_PATH"))
        return Command(
            argv=spec.arguments(told, request),
            environment=base | spec.own_environment(told, request),
            own_names=spec.own_names(told),
        )

    def can_lock(self, program: EngineProgram) -> bool:
        """No: there is no flag that all servers know."""
        return False

    def estimate(
        self, inspection: Inspection, options: ModelOptions, device: DeviceTraits
    ) -> Footprint:
        """What its entry declares. Raises GgufInvalid for files of another engine."""
        return sizes.declared(inspection, device)

    def host_bytes(
        self, inspection: Inspection, options: ModelOptions, device: DeviceTraits
    ) -> int:
        """What its entry declares; 0 on the host itself, whose footprint has all of it."""
        return sizes.beside(inspection, device)

    def devices_needed(self, options: ModelOptions) -> int:
        """One."""
        return 1

    def contexts_per_device(self, options: ModelOptions) -> int:
        """One, as far as anybody knows."""
        return 1

    async def readiness(self, endpoint: str) -> Readiness:
        """READY once its health path answers 2xx; never raises.

        Of a server whose entry is gone nothing is known but whether it answers at all.
        """
        told = self._spec_at(endpoint)
        path = told.health if told is not None else "/"
        try:
            answer = await self._probe.get(endpoint + path, HEALTH_LIMIT_SECONDS)
        except ProbeFailed as failure:
            return Readiness.of_silence(failure)
        if told is None or 200 <= answer.status < 300:
            return Readiness.READY
        return Readiness.LOADING if answer.status in _NOT_YET else Readiness.BROKEN

    async def warm_up(
        self, endpoint: str, model: Model, options: ModelOptions, key: ApiKey | None = None
    ) -> Warmth:
        """First tokens, or an embedding, of a server whose entry says its kind.

        It tells no speed: no field of the answers is common to all servers. Raises ProbeFailed.
        """
        await self._ask(endpoint, first_request(model, WARM_UP_TOKENS), WARM_UP_LIMIT_SECONDS, key)
        return Warmth(tokens_per_second=None, time_to_first_token_seconds=None)

    async def probe(
        self, endpoint: str, model: Model, options: ModelOptions, key: ApiKey | None = None
    ) -> None:
        """One token, or an embedding; its health where no kind is said. Raises ProbeFailed."""
        await self._ask(endpoint, first_request(model, 1), PROBE_LIMIT_SECONDS, key)

    async def _ask(
        self,
        endpoint: str,
        request: tuple[str, dict[str, Any]] | None,
        limit_seconds: float,
        key: ApiKey | None,
    ) -> None:
        """Raises ProbeFailed for anything but 2xx."""
        told = self._spec_at(endpoint)
        if request is not None:
            url = endpoint + request[0]
            answer = await self._probe.post_json(url, request[1], limit_seconds, key)
        elif told is not None:
            url = endpoint + told.health
            answer = await self._probe.get(url, limit_seconds, key)
        else:
            return
        answer.granted(url)

    async def pulse(self, endpoint: str, key: ApiKey | None = None) -> Pulse | None:
        """What the counters that its entry names tell; None where it names none."""
        told = self._spec_at(endpoint)
        if told is None or not told.metrics:
            return None
        try:
            return metrics.pulse(await self._metrics(endpoint, told, key), told.counters)
        except ProbeFailed:
            return None

    async def counters(self, endpoint: str, key: ApiKey | None = None) -> Counters | None:
        """All that its entry names; None where it names nothing. Raises ProbeFailed."""
        told = self._spec_at(endpoint)
        if told is None or not told.metrics:
            return None
        return metrics.counters(await self._metrics(endpoint, told, key), told.counters)

    async def _metrics(self, endpoint: str, told: CommandSpec, key: ApiKey | None) -> str:
        url = endpoint + told.metrics
        return (await self._probe.get(url, HEALTH_LIMIT_SECONDS, key)).granted(url).text

    async def in_flight(self, endpoint: str, key: ApiKey | None = None) -> int | None:
        """Requests running and waiting; None: no counter tells. Never raises."""
        pulse = await self.pulse(endpoint, key)
        return None if pulse is None else pulse.in_flight

    def measured_bytes(self, output: tuple[str, ...]) -> int | None:
        """Unknown from its output: the devices tell what its processes use."""
        return None

    def load_step(self, output_tail: tuple[str, ...]) -> LoadStep:
        """Unknown."""
        return LoadStep()

    def hopeless(self, output_tail: tuple[str, ...]) -> str:
        """Nothing is known of its output."""
        return ""

    def explain_exit(self, output_tail: tuple[str, ...]) -> str:
        """What the last lines mean, in a few words; empty when they say nothing known."""
        return explain_exit(output_tail)


def _spec(model: Model) -> CommandSpec:
    """Raises ProgramRefused."""
    if model.command is None:
        raise ProgramRefused(
            engine=EngineKind.COMMAND.value,
            program=model.name,
            problem="its entry names no argv; write it into the configuration",
        )
    return model.command
