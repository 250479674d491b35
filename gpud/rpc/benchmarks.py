"""What InstanceService tells of benchmarks: run, listed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from gpud.access.identity import CALLER
from gpud.access.refusals import NotOwner
from gpud.benchmarking.benchmark import Benchmark, Plan
from gpud.benchmarking.benchmarks import Benchmarks
from gpud.errors import OptionInvalid
from gpud.instances.instance import Instance
from gpud.rpc import benchmark_messages, messages, paging
from gpud.v1 import benchmarks_pb2 as pb

MAX_PROMPTS: Final = 10_000
MAX_PROMPT_TOKENS: Final = 128 * 1024
MAX_OUTPUT_TOKENS: Final = 8192
# Of one level: the moment of each is kept until the level is over, 8 bytes each.
MAX_LEVEL_TOKENS: Final = 4_000_000
MAX_CONCURRENCY: Final = 256
MAX_LEVELS: Final = 16
MAX_WARMUP: Final = 100
MAX_LIMIT_SECONDS: Final = 3600.0
_DEFAULT: Final = Plan()


class BenchmarkMethods:
    """The methods of InstanceService about benchmarks."""

    def __init__(self, benchmarks: Benchmarks) -> None:
        self._benchmarks = benchmarks

    async def BenchmarkModel(
        self, request: pb.BenchmarkModelRequest, context: Any
    ) -> AsyncIterator[pb.BenchmarkModelResponse]:
        """Measure an instance; who leaves stops it."""
        plan = _plan(request)
        instance = self._instance(request)
        if not CALLER.get().may_change(instance.owner):
            raise NotOwner(name=instance.name)
        run = self._benchmarks.start(instance, messages.acting_for(""), plan)
        try:
            async for _, progress in run.progress.follow():
                yield benchmark_messages.progress(progress)
        finally:
            run.stop()
        if run.error is not None:
            raise run.error

    async def ListBenchmarks(
        self, request: pb.ListBenchmarksRequest, context: Any
    ) -> pb.ListBenchmarksResponse:
        """What was measured, oldest first."""
        model = messages.checked_text("model", request.model).removeprefix("models/")
        shown, token = paging.page(self._benchmarks.kept(model), _key, request)
        return pb.ListBenchmarksResponse(
            benchmarks=[benchmark_messages.benchmark(each) for each in shown],
            next_page_token=token,
        )

    def _instance(self, request: pb.BenchmarkModelRequest) -> Instance:
        roster = self._benchmarks.roster
        if bool(request.instance) == bool(request.model):
            raise OptionInvalid(field="instance", problem="name either an instance or a model")
        if request.instance:
            return roster.get(messages.checked_name("instance", request.instance, "instances"))
        return roster.of_model(messages.checked_name("model", request.model, "models"))


def _plan(request: pb.BenchmarkModelRequest) -> Plan:
    """Raises OptionInvalid."""
    plan = Plan(
        prompts=_within("prompts", request.prompts or _DEFAULT.prompts, 1, MAX_PROMPTS),
        prompt_tokens=_within(
            "prompt_tokens", request.prompt_tokens or _DEFAULT.prompt_tokens, 1, MAX_PROMPT_TOKENS
        ),
        output_tokens=_within(
            "output_tokens", request.output_tokens or _DEFAULT.output_tokens, 1, MAX_OUTPUT_TOKENS
        ),
        concurrency=_concurrency(tuple(request.concurrency)),
        warmup=_within("warmup", request.warmup, 0, MAX_WARMUP)
        if request.HasField("warmup")
        else _DEFAULT.warmup,
        drained=request.drained,
        limit_seconds=messages.checked_span("limit", request, 1.0, MAX_LIMIT_SECONDS)
        or _DEFAULT.limit_seconds,
    )
    if plan.prompts * plan.output_tokens > MAX_LEVEL_TOKENS:
        raise OptionInvalid(
            field="prompts",
            problem=f"{plan.prompts} × {plan.output_tokens} tokens are more than "
            f"{MAX_LEVEL_TOKENS} at one concurrency",
        )
    return plan


def _concurrency(asked: tuple[int, ...]) -> tuple[int, ...]:
    if len(asked) > MAX_LEVELS:
        problem = f"{len(asked)} of them, at most {MAX_LEVELS}"
        raise OptionInvalid(field="concurrency", problem=problem)
    for each in asked:
        _within("concurrency", each, 1, MAX_CONCURRENCY)
    return asked or _DEFAULT.concurrency


def _within(field: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise OptionInvalid(field=field, problem=f"{value} is not within {low} … {high}")
    return value


def _key(benchmark: Benchmark) -> str:
    return f"{benchmark.create_wall:020.6f}/{benchmark.id}"
