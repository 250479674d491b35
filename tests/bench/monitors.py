"""`python -m tests.bench.monitors NAME`: takes snapshots of all cards when asked.

NAME is gpud, gpud-each-second, nvitop or gpustat. A number comes in on a line, so many snapshots
are taken, and the mean seconds and CPU seconds of one go out. nvitop and gpustat run in an
environment of their own, so nothing of ours is imported for them.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable

Take = Callable[[], object]


def of_gpud(every: int) -> Take:
    """What the sampling process reads of cards; process lists and rare fields once in `every`."""
    from msgspec.structs import replace

    from gpud.clock import SystemClock
    from gpud.devices.sampling.frames import Orders, SamplerSettings
    from gpud.devices.sampling.helper import FrameWriter, build

    settings = SamplerSettings(nvml="on", host=False, processes_every=every)
    settings = replace(settings, interval_seconds=60.0 if every == 1 else 1.0)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    orders = Orders(settings=settings, host_uuid="HOST-bench")
    helper = build(orders, FrameWriter(nowhere).send, SystemClock())

    ticks = itertools.count()

    def take() -> None:
        if next(ticks) % every == 0:
            helper.list_soon()
        helper.tick()

    return take


def of_nvitop() -> Take:
    """What `nvitop` itself refreshes its screen from: devices, and the processes on them."""
    from nvitop import Device, take_snapshots  # type: ignore[import-not-found]

    devices = Device.all()
    return lambda: take_snapshots(devices)


def of_gpustat() -> Take:
    """What `gpustat` prints, once."""
    from gpustat import new_query  # type: ignore[import-not-found]

    query: Take = new_query
    return query


def main() -> None:
    """Until stdin ends."""
    # What a monitor logs or prints is no answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    makers: dict[str, Callable[[], Take]] = {
        "gpud": lambda: of_gpud(1),
        "gpud-each-second": lambda: of_gpud(5),
        "nvitop": of_nvitop,
        "gpustat": of_gpustat,
    }
    take = makers[sys.argv[1]]()
    take()
    for line in sys.stdin:
        count, began, cpu = int(line), time.perf_counter(), time.process_time()
        for _ in range(count):
            take()
        wall = (time.perf_counter() - began) / count
        print(wall, (time.process_time() - cpu) / count, file=answers, flush=True)


if __name__ == "__main__":
    main()
