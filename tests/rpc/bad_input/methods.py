"""Every method of the API: a request that does no harm, and what can be wrong in each field."""

from __future__ import annotations

from collections.abc import Callable

from gpud.v1 import benchmarks_pb2, devices_pb2, instances_pb2, models_pb2, node_pb2, telemetry_pb2
from gpud.v1 import reservations_pb2 as pb
from tests.rpc.bad_input import values
from tests.rpc.bad_input.alerting import alerting
from tests.rpc.bad_input.leases import reservations
from tests.rpc.bad_input.method import HOUR_SECONDS, WEEK_SECONDS, Method, World, paged
from tests.rpc.bad_input.registering import registering
from tests.rpc.bad_input.seeing import seeing
from tests.rpc.bad_input.values import INT64_MAX, Values, invalid, not_found

DAY_SECONDS = 86400
NO_PID = 2**22  # the kernel gives out lower ones


def methods(world: World) -> dict[str, Method]:
    """By full name."""
    found = {
        "NodeService": _node(),
        "DeviceService": _devices(),
        "TelemetryService": _telemetry(),
        "ReservationService": reservations(world),
        "ModelService": _models(),
        "InstanceService": _instances(world),
    }
    return {
        f"gpud.v1.{service}.{name}": method
        for service, all_of_it in found.items()
        for name, method in all_of_it.items()
    }


def _node() -> dict[str, Method]:
    texts: dict[str, Callable[[], Values]] = {
        "type": lambda: values.text("type"),
        "subject": lambda: values.text("subject"),
    }
    asks: dict[str, Callable[[], Values]] = {
        "request_id": values.request_id,
        "owner": lambda: values.text("owner"),
    }

    def after() -> Values:
        # No journal gets so far.
        return values.number("after_sequence", 0, 2**62, most=INT64_MAX)

    return {
        "GetNode": Method(request=node_pb2.GetNodeRequest),
        "ListEvents": Method(
            request=node_pb2.ListEventsRequest,
            fields=texts
            | paged(node_pb2.ListEventsRequest, "9" * 30)
            | {"request_id": values.request_id},
            free=frozenset({"since", "until"}),
        ),
        "WatchEvents": Method(
            request=node_pb2.WatchEventsRequest,
            fields=texts | {"after_sequence": after, "request_id": values.request_id},
            free=frozenset({"since"}),
            harmless={"type": "\0"},
        ),
        "DrainNode": Method(
            request=node_pb2.DrainNodeRequest,
            fields=asks
            | {
                "deadline": lambda: values.span("deadline", 0, HOUR_SECONDS),
                "reason": lambda: values.text("reason"),
            },
            free=frozenset({"stop_instances"}),
            harmless={"owner": "\0"},
        ),
        "ResumeNode": Method(
            request=node_pb2.ResumeNodeRequest, fields=asks, harmless={"owner": "\0"}
        ),
        "ReloadConfig": Method(
            request=node_pb2.ReloadConfigRequest,
            fields=asks,
            free=frozenset({"validate_only"}),
            harmless={"owner": "\0"},
        ),
    }


def _devices() -> dict[str, Method]:
    def named() -> Values:
        return values.name("name", "devices", "DEVICE")

    asks: dict[str, Callable[[], Values]] = {
        "request_id": values.request_id,
        "name": named,
        "owner": lambda: values.text("owner"),
    }
    return {
        "ListDevices": Method(
            request=devices_pb2.ListDevicesRequest,
            fields=paged(devices_pb2.ListDevicesRequest, ""),
            free=frozenset({"include_processes"}),
        ),
        "GetDevice": Method(request=devices_pb2.GetDeviceRequest, fields={"name": named}),
        "CordonDevice": Method(
            request=devices_pb2.CordonDeviceRequest,
            base={"name": "gpu0"},
            fields=asks | {"reason": lambda: values.text("reason")},
        ),
        "UncordonDevice": Method(
            request=devices_pb2.UncordonDeviceRequest, base={"name": "gpu0"}, fields=asks
        ),
    }


def _telemetry() -> dict[str, Method]:
    return {
        "GetSnapshot": Method(
            request=telemetry_pb2.GetSnapshotRequest,
            fields={"devices": values.devices},
            free=frozenset({"include_processes"}),
        ),
        "WatchSnapshots": Method(
            request=telemetry_pb2.WatchSnapshotsRequest,
            fields={
                "devices": values.devices,
                "interval": lambda: values.span("interval", 0, HOUR_SECONDS),
                "after_sequence": lambda: values.number(
                    "after_sequence", 0, INT64_MAX, most=INT64_MAX
                ),
                "epoch": lambda: values.text("epoch"),
            },
            free=frozenset({"include_processes"}),
            harmless={"devices": ["\0"]},
        ),
        **seeing(),
        **alerting(),
    }


def _options() -> Values:
    for option, wrong in (
        ("context_length", (0, -1, -(2**31))),
        ("parallel", (0, -1, 100_000)),
        ("batch", (0, -1)),
        ("ubatch", (0, -1)),
        ("cache_type_k", ("", "q17", "f16; rm -rf /", "--host", "f16\0")),
        ("cache_type_v", ("q17", "../f16")),
        ("flash_attention", ("perhaps", "--host", "ON ")),
        ("gpu_layers", (-1, -2)),
        ("threads", (0, -1, 100_000)),
        ("threads_batch", (0, -1, 100_000)),
        ("tensor_split", ([0.0], [-1.0, 1.0], [float("nan")], [float("inf")], [1.0] * 17)),
        ("split_mode", ("", "tensor", "--host", "layer\0")),
        ("cache_reuse", (-1, 2**31 - 1)),
        ("cache_ram_bytes", (-1, 2**63 - 1)),
        ("pooling", ("", "sum", "--host")),
        ("sleep_idle_seconds", (-1, 2**31 - 1)),
        # Of vLLM, and the model is of llama.cpp.
        ("dtype", ("auto", "--host")),
        ("quantization", ("awq",)),
        ("kv_cache_dtype", ("auto",)),
        ("max_num_seqs", (4, 0)),
        ("max_num_batched_tokens", (2048,)),
        ("tensor_parallel_size", (2,)),
        ("enforce_eager", (True,)),
        ("kv_cache_bytes", (2**30,)),
        ("sleep_mode", (False,)),
    ):
        for value in wrong:
            told = models_pb2.ModelOptions(**{option: value})
            yield f"{option} {value!r}", told, invalid(option)


def _models() -> dict[str, Method]:
    def named(field_: str) -> Callable[[], Values]:
        return lambda: values.name(field_, "models", "MODEL")

    def device() -> Values:
        yield from values.text("device")
        for label, value in values.STRANGERS:
            yield label, value, not_found("DEVICE")

    return {
        "ListModels": Method(
            request=models_pb2.ListModelsRequest,
            fields=paged(models_pb2.ListModelsRequest, ""),
        ),
        "GetModel": Method(request=models_pb2.GetModelRequest, fields={"name": named("name")}),
        "EstimateFootprint": Method(
            request=models_pb2.EstimateFootprintRequest,
            base={"model": "ghost"},
            fields={"model": named("model"), "options": _options, "device": device},
        ),
        **registering(_options),
    }


def _instances(world: World) -> dict[str, Method]:
    def named(field_: str) -> Callable[[], Values]:
        return lambda: values.name(field_, "instances", "INSTANCE")

    return {
        "LoadModel": _load(world),
        "UnloadModel": Method(
            request=instances_pb2.UnloadModelRequest,
            base={"instance": "none"},
            fields={
                "request_id": values.request_id,
                "instance": named("instance"),
                "grace": lambda: values.span("grace", 0, HOUR_SECONDS),
                "owner": lambda: values.text("owner"),
                "model": lambda: iter([("beside an instance", "ghost", invalid("instance"))]),
            },
            free=frozenset({"force"}),
            more=(
                ("neither of the two", {}, invalid("instance")),
                ("a model that is not loaded", {"model": "ghost"}, not_found("INSTANCE")),
                *(
                    (f"model {label}", {"model": value}, told)
                    for label, value, told in values.optional_name("model", "models", "MODEL")
                ),
            ),
        ),
        "ResetInstance": Method(
            request=instances_pb2.ResetInstanceRequest,
            base={"name": "none"},
            fields={
                "request_id": values.request_id,
                "name": named("name"),
                "owner": lambda: values.text("owner"),
            },
        ),
        "ListOrphans": Method(
            request=instances_pb2.ListOrphansRequest,
            fields=paged(instances_pb2.ListOrphansRequest, ""),
        ),
        "ReapOrphans": Method(
            request=instances_pb2.ReapOrphansRequest,
            base={"pids": [NO_PID]},
            fields={
                "request_id": values.request_id,
                "pids": _pids,
                "owner": lambda: values.text("owner"),
            },
        ),
        "SleepInstance": Method(
            request=instances_pb2.SleepInstanceRequest,
            base={"name": "none"},
            fields={
                "request_id": values.request_id,
                "name": named("name"),
                "level": lambda: values.number("level", 0, 2),
                "grace": lambda: values.span("grace", 0, HOUR_SECONDS),
                "owner": lambda: values.text("owner"),
            },
        ),
        "WakeInstance": Method(
            request=instances_pb2.WakeInstanceRequest,
            base={"name": "none"},
            fields={
                "request_id": values.request_id,
                "name": named("name"),
                "owner": lambda: values.text("owner"),
            },
        ),
        "GetInstance": Method(
            request=instances_pb2.GetInstanceRequest, fields={"name": named("name")}
        ),
        "ListInstances": Method(
            request=instances_pb2.ListInstancesRequest,
            fields=paged(instances_pb2.ListInstancesRequest, "")
            | {"states": lambda: values.enum("states", 12, repeated=True)},
            free=frozenset({"model"}),
        ),
        "WatchInstance": Method(
            request=instances_pb2.WatchInstanceRequest, fields={"name": named("name")}
        ),
        "TailOutput": Method(
            request=instances_pb2.TailOutputRequest,
            base={"instance": "none"},
            fields={
                "instance": named("instance"),
                "lines": lambda: values.number("lines", 0, 10_000),
            },
            # Of a moment before or after all that was written, all or nothing is told.
            free=frozenset({"follow", "since"}),
        ),
        "BenchmarkModel": _benchmark(named("instance")),
        "ListBenchmarks": Method(
            request=benchmarks_pb2.ListBenchmarksRequest,
            fields=paged(benchmarks_pb2.ListBenchmarksRequest, "")
            | {"model": lambda: values.text("model")},
        ),
    }


def _pids() -> Values:
    for label, value in (
        ("0", [0]),
        ("negative", [-1]),
        ("beyond any process's number", [NO_PID + 1]),
        ("the type's most", [values.INT32_MAX]),
        ("twice", [NO_PID, NO_PID]),
        ("a thousand and one", list(range(1, 1002))),
        ("ten thousand times", [NO_PID] * 10_000),
    ):
        yield label, value, invalid("pids")
    yield "of nobody", [NO_PID], not_found("ORPHAN")
    yield "of no orphan", [1], not_found("ORPHAN")


def _benchmark(instance: Callable[[], Values]) -> Method:
    return Method(
        request=benchmarks_pb2.BenchmarkModelRequest,
        base={"instance": "none"},
        fields={
            "instance": instance,
            "model": lambda: iter([("beside an instance", "ghost", invalid("instance"))]),
            "prompts": lambda: values.number("prompts", 0, 10_000),
            "prompt_tokens": lambda: values.number("prompt_tokens", 0, 128 * 1024),
            "output_tokens": lambda: values.number("output_tokens", 0, 8192),
            "concurrency": _concurrency,
            "warmup": lambda: values.number("warmup", 0, 100),
            "limit": lambda: values.span("limit", 1, HOUR_SECONDS),
        },
        free=frozenset({"drained"}),
        more=(
            ("neither of the two", {}, invalid("instance")),
            ("a model that is not loaded", {"model": "ghost"}, not_found("INSTANCE")),
            (
                "more tokens than are kept",
                {"instance": "none", "prompts": 10_000, "output_tokens": 8192},
                invalid("prompts"),
            ),
            *(
                (f"model {label}", {"model": value}, told)
                for label, value, told in values.optional_name("model", "models", "MODEL")
            ),
        ),
    )


def _concurrency() -> Values:
    for label, value in (
        ("none at once", [0]),
        ("below none", [-1]),
        ("one above", [257]),
        ("one of several", [1, 2**31 - 1]),
        ("one level too many", [1] * 17),
        ("ten thousand levels", [1] * 10_000),
    ):
        yield label, value, invalid("concurrency")


def _load(world: World) -> Method:
    inside = {"model": "ghost", "reservation": world.held, "sharing": pb.SHARING_EXCLUSIVE}
    return Method(
        request=instances_pb2.LoadModelRequest,
        base={"model": "ghost"},
        fields={
            "request_id": values.request_id,
            "model": lambda: values.name("model", "models", "MODEL"),
            "options": _options,
            "devices": values.devices,
            "owner": lambda: values.text("owner"),
            "priority": lambda: values.enum("priority", 4),
            "sharing": lambda: values.enum("sharing", 2),
            "max_wait": lambda: values.span("max_wait", 0, WEEK_SECONDS),
            "idle_ttl": lambda: values.span("idle_ttl", 1, 365 * DAY_SECONDS),
            "reservation": lambda: values.optional_name(
                "reservation", "reservations", "RESERVATION"
            ),
            "labels": values.labels,
        },
        free=frozenset({"validate_only", "preemptible", "pinned"}),
        more=(("exclusive within a share", inside, invalid("sharing")),),
    )
