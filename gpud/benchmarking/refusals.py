"""Pure: why no benchmark came of it."""

from __future__ import annotations

from dataclasses import dataclass

from gpud.errors import GpudError


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
