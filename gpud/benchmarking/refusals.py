"""Pure: why no benchmark came of it, or can come."""

from __future__ import annotations

from dataclasses import dataclass

from gpud.benchmarking.benchmark import Plan
from gpud.errors import GpudError, OptionInvalid
from gpud.models.model import EngineKind, ModelOptions


@dataclass(kw_only=True, eq=False)
class BenchmarkFailed(GpudError):
    """Its first request had no answer: there is nothing to measure."""

    reason = "ENGINE_NOT_READY"

    instance: str
    kind: str
    detail: str

    def __str__(self) -> str:
        told = f"{self.kind}: {self.detail}" if self.detail else self.kind
        return (
            f"cannot benchmark {self.instance}: its first request failed with {told}; "
            f"`gpuctl logs {self.instance}` shows what it wrote"
        )


def slot_tokens(engine: EngineKind, options: ModelOptions) -> int | None:
    """The context that one request may have; None: not known.

    llama-server divides its context evenly among its slots, unless they share it.
    """
    context = options.context_length
    if context is None or engine is EngineKind.COMMAND:
        return None
    if engine is EngineKind.LLAMA_CPP and not options.kv_unified:
        return context // (options.parallel or 1)
    return context


def check_fits(engine: EngineKind, options: ModelOptions, plan: Plan) -> None:
    """Prompt and answer have room in one slot. Raises OptionInvalid."""
    room = slot_tokens(engine, options)
    answer = 0 if options.embedding else plan.output_tokens
    if room is None or plan.prompt_tokens + answer <= room:
        return
    wanted = f"{plan.prompt_tokens}" + (f" and an answer of {answer}" if answer else "")
    raise OptionInvalid(
        field="prompt_tokens",
        problem=f"{wanted} are more than the {room} tokens that one request has room for; "
        "ask for less, or load it with a larger context_length or with fewer slots (parallel)",
    )
