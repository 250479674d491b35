"""Pure: calls over gRPC, on the native page, by the names that stock dashboards look for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from gpud.access.auditing.calls import BOUNDS_SECONDS, MethodCalls
from gpud.telemetry.page.table import Table, counter, histogram, labelled, spans


class CallsPart:
    """The part of the page about calls."""

    def __init__(self) -> None:
        self._handled = Table(
            [counter("grpc_server_handled_total", "Calls that ended, by how they ended.")]
        )
        # A stream lasts as long as its client likes: only of unary calls it is told how long.
        self._seconds = Table(
            histogram("grpc_server_handling_seconds", "How long unary calls took.", BOUNDS_SECONDS)
        )

    def render(self, called: Sequence[MethodCalls]) -> str:
        """Of methods that were called."""
        handled = [
            (_labels(each.service, each.method, each.kind, code), count)
            for each in called
            for code, count in sorted(each.codes.items())
        ]
        unary = [each for each in called if each.kind == "unary"]
        return self._handled.render(
            tuple(labels for labels, _ in handled), [(count,) for _, count in handled]
        ) + self._seconds.render(
            tuple(_labels(each.service, each.method, each.kind, "") for each in unary),
            [spans(each.seconds) for each in unary],
        )


@lru_cache(maxsize=1024)
def _labels(service: str, method: str, kind: str, code: str) -> str:
    return labelled(grpc_service=service, grpc_method=method, grpc_type=kind, grpc_code=code)
