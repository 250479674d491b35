"""Limits of an instance on a real process: its cores, its threads, what is told of its memory."""

from __future__ import annotations

import os
from collections.abc import Callable

import grpc

from tests.end_to_end.driving import load, unload
from tests.running import Gpud, calling, refused

MakeGpud = Callable[..., Gpud]
MODELS = (
    'limits = { cpus = 1.0, memory = "1GiB" }\n'
    '[models.other]\npath = "tiny.gguf"\nlimits = { cpus = 1.0 }\n'
    '[models.free]\npath = "tiny.gguf"\n'
    '[models.cramped]\npath = "tiny.gguf"\ncontext_length = 100000\n'
    'limits = { memory = "16MiB" }\n'
    '[limits.default]\nmemory = "2GiB"\n'
)


async def test_cores_are_shared_out_and_memory_told(stubbed: MakeGpud) -> None:
    async with calling(stubbed(models=MODELS).start()) as api:
        one, two = await load(api, "tiny"), await load(api, "other")
        free = await load(api, "free")
        assert (one.limits.cpus, one.limits.memory_bytes) == (1.0, 2**30)
        assert one.options.threads == 1
        first, second = os.sched_getaffinity(one.pid), os.sched_getaffinity(two.pid)
        assert len(first) == len(second) == 1
        if len(os.sched_getaffinity(0)) > 1:
            assert first != second
        assert one.cpu_affinity == str(*first)
        assert one.limits_enforced.startswith(f"cpus: bound to CPUs {one.cpu_affinity}; memory: ")
        assert one.limits_enforced.endswith(
            ("memory: cgroup", "memory: not enforced: no memory controller is delegated")
        )
        # The default is of those that say nothing, and takes no cores from them.
        assert not two.limits.HasField("memory_bytes")
        assert free.limits.memory_bytes == 2**31
        assert not free.options.HasField("threads")
        assert os.sched_getaffinity(free.pid) == os.sched_getaffinity(0)
        # Cores that came free are the next one's.
        await unload(api, instance=one.name)
        again = await load(api, "tiny")
        assert os.sched_getaffinity(again.pid) == first


async def test_a_model_that_needs_more_is_refused_with_numbers(stubbed: MakeGpud) -> None:
    async with calling(stubbed(models=MODELS).start()) as api:
        told = await refused(load(api, "cramped"))
        assert told.code is grpc.StatusCode.INVALID_ARGUMENT
        assert "limits.memory: 16 MiB of the host's memory are less than the " in told.message
