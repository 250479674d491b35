"""`python -m tests.bench.monitors gpud|nvitop|gpustat`: takes snapshots of all cards when asked.

A number comes in on a line, so many snapshots are taken, and the median of their seconds goes out.
nvitop and gpustat run in an environment of their own, so nothing of ours is imported for them.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable

Take = Callable[[], object]


def of_gpud() -> Take:
    """Everything that the sampling process reads of cards, process lists and rare fields too."""
    from gpud.clock import SystemClock
    from gpud.devices.sampling.frames import Orders, SamplerSettings
    from gpud.devices.sampling.helper import FrameWriter, build

    # Rare fields are read in as many ticks as process lists are: in each.
    settings = SamplerSettings(nvml="on", host=False, processes_every=1, interval_seconds=60.0)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    orders = Orders(settings=settings, host_uuid="HOST-bench")
    helper = build(orders, FrameWriter(nowhere).send, SystemClock())

    def take() -> None:
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
    take = {"gpud": of_gpud, "nvitop": of_nvitop, "gpustat": of_gpustat}[sys.argv[1]]()
    take()
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            began = time.perf_counter()
            take()
            seconds.append(time.perf_counter() - began)
        print(statistics.median(seconds), file=answers, flush=True)


if __name__ == "__main__":
    main()
