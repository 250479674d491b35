"""The last lines of what an engine wrote, and those to come, read by a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable

from gpuctl.client import Client
from gpuctl.failures import Failure
from gpuctl.tables import clean_line
from gpud.v1.instances_pb2 import TailOutputRequest

_LINES = 200
_JOIN_SECONDS = 2.0


class Tail:
    """`deliver` is called in its thread with lines that are clean; it must not wait."""

    def __init__(
        self, client: Client, instance: str, deliver: Callable[[list[str]], object]
    ) -> None:
        request = TailOutputRequest(instance=instance, lines=_LINES, follow=True)
        self._stream = client.follow(client.instances.TailOutput, request)
        self._deliver = deliver
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True, name="tail")

    def start(self) -> None:
        """Begin; once."""
        self._thread.start()

    def stop(self) -> None:
        """End, from any thread but its own."""
        self._ended.set()
        self._stream.cancel()
        self._thread.join(_JOIN_SECONDS)

    def _follow(self) -> None:
        try:
            for answer in self._stream:
                self._deliver([clean_line(line) for line in answer.lines])
        except Failure as failure:
            if not self._ended.is_set():
                self._deliver([f"── {clean_line(failure.message)}"])
