"""Messages as a node with two simulated cards and the host would send them."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from gpud.v1 import devices_pb2 as d
from gpud.v1 import instances_pb2 as i
from gpud.v1 import models_pb2 as m
from gpud.v1 import node_pb2 as n
from gpud.v1 import reservations_pb2 as r
from gpud.v1 import telemetry_pb2 as t

GIB = 1024**3
MIB = 1024**2
NOW = 1_800_000_000  # 2027-01-15T08:00:00Z


def moment(offset_seconds: int = 0) -> Timestamp:
    return Timestamp(seconds=NOW + offset_seconds)


def node(**changes: object) -> n.Node:
    made = n.Node(
        hostname="rig",
        version="0.1.0",
        boot_id="11111111-2222-3333-4444-555555555555",
        state=n.NODE_STATE_READY,
        policy=n.Policy(
            strict_allocation=True,
            device_reserve_bytes=512 * MIB,
            reserve_system_memory_bytes=2 * GIB,
            release_deadline=Duration(seconds=10),
        ),
        engines=[
            n.EngineInfo(engine=n.ENGINE_LLAMA_CPP, version="b11669", path="/opt/llama-server")
        ],
        start_time=moment(-3 * 86400 - 4 * 3600),
        sampling_interval=Duration(seconds=1),
    )
    made.MergeFrom(n.Node(**changes))
    return made


def card(index: int = 0) -> d.Device:
    return d.Device(
        name=f"devices/SIM-000{index}",
        alias=f"gpu{index}",
        index=index,
        kind=d.DEVICE_KIND_SIMULATED,
        model_name="P106-100",
        memory_total_bytes=6 * GIB,
        reserve_bytes=512 * MIB,
        grantable_bytes=int(1.25 * GIB),
        granted_bytes=4 * GIB,
        foreign_bytes=256 * MIB,
        unattributed_bytes=0,
        leaked_bytes=0,
        free_bytes=int(3.5 * GIB),
        health=d.DEVICE_HEALTH_HEALTHY,
        compute_mode=d.COMPUTE_MODE_DEFAULT,
        pci_bus_id=f"0000:0{index}:00.0",
        driver_version="580.95",
        pressure=d.PRESSURE_LOW,
        thermal=d.THERMAL_NORMAL,
        sample=d.Sample(
            time=moment(),
            memory_used_bytes=int(2.5 * GIB),
            utilization_percent=37.4,
            temperature_celsius=61,
            power_watts=84.6,
            processes_time=moment(),
        ),
    )


def silent_card() -> d.Device:
    """An old card that refuses nearly every reading."""
    return d.Device(
        name="devices/SIM-0001",
        alias="gpu1",
        index=1,
        kind=d.DEVICE_KIND_GPU,
        model_name="NVIDIA GeForce GTX TITAN X (Maxwell)",
        reserve_bytes=512 * MIB,
        health=d.DEVICE_HEALTH_UNRESPONSIVE,
        health_reason="no answer within 2 s",
        sample=d.Sample(time=moment()),
    )


def host() -> d.Device:
    return d.Device(
        name="devices/host",
        alias="host",
        kind=d.DEVICE_KIND_HOST,
        model_name="host memory",
        memory_total_bytes=16 * GIB,
        reserve_bytes=2 * GIB,
        grantable_bytes=9 * GIB,
        foreign_bytes=5 * GIB,
        unattributed_bytes=0,
        free_bytes=11 * GIB,
        health=d.DEVICE_HEALTH_HEALTHY,
        sample=d.Sample(time=moment(), memory_used_bytes=5 * GIB),
    )


def devices() -> list[d.Device]:
    return [card(0), silent_card(), host()]


def reservation(**changes: object) -> r.Reservation:
    made = r.Reservation(
        name="reservations/r-4m2k",
        owner="ada@rig",
        state=r.RESERVATION_STATE_GRANTED,
        kind=r.RESERVATION_KIND_LEASED,
        grants=[
            r.Grant(device="devices/SIM-0000", bytes=4 * GIB, enforcement=r.ENFORCEMENT_LEDGER)
        ],
        generation=1,
        sharing=r.SHARING_SHARED,
        placement=r.PLACEMENT_PACK,
        priority=r.PRIORITY_NORMAL,
        shapes=[r.Shape(bytes=4 * GIB, device_count=1)],
        create_time=moment(-6),
        expire_time=moment(54),
        ttl=Duration(seconds=60),
        environment={"CUDA_VISIBLE_DEVICES": "SIM-0000", "GPUD_RESERVATION": "r-4m2k"},
        labels={"team": "search"},
    )
    made.MergeFrom(r.Reservation(**changes))
    return made


def queued(position: int = 2, **changes: object) -> r.Reservation:
    """A request that waits for bytes."""
    made = r.Reservation(
        name="reservations/r-4m2k",
        owner="ada@rig",
        state=r.RESERVATION_STATE_QUEUED,
        kind=r.RESERVATION_KIND_LEASED,
        generation=1,
        sharing=r.SHARING_SHARED,
        placement=r.PLACEMENT_PACK,
        priority=r.PRIORITY_BATCH,
        preemptible=True,
        queue_position=position,
        wait_reason="gpu0 has 1.25 GiB grantable of the 4 GiB it needs",
        expected_time=moment(40),
        wait_until_time=moment(600),
        shapes=[
            r.Shape(bytes=4 * GIB, device_count=1),
            r.Shape(bytes=2 * GIB, device_count=2, devices=["gpu0", "gpu1"]),
        ],
        create_time=moment(-6),
        ttl=Duration(seconds=60),
    )
    made.MergeFrom(r.Reservation(**changes))
    return made


def explanation() -> r.ExplainResponse:
    """40 GiB, which one card could never carry, or 2 × 4 GiB, for which one of two is too full."""
    holders = [
        r.Holder(
            reservation="reservations/r-4m2k",
            owner="ada@rig",
            bytes=4 * GIB,
            until_time=moment(54),
        ),
        r.Holder(owner="foreign", bytes=256 * MIB, pid=77, process_name="miner\x1b]0;owned\x07"),
        r.Holder(owner="reserve", bytes=512 * MIB),
    ]
    gpu0 = r.DeviceExplanation(
        device="devices/SIM-0000",
        alias="gpu0",
        grantable_bytes=int(1.25 * GIB),
        total_bytes=6 * GIB,
        reserve_bytes=512 * MIB,
        granted_bytes=4 * GIB,
        foreign_bytes=256 * MIB,
        unattributed_bytes=0,
        holders=holders,
    )
    made = r.ExplainResponse(
        summary="cannot promise 40 GiB: gpu0: 1.25 GiB grantable of 6 GiB",
        reason="VRAM_INSUFFICIENT",
        queue_ahead=1,
        can_wait=True,
    )
    first = made.devices.add(needed_bytes=40 * GIB, remedy="ask for at most 5.5 GiB a device")
    first.MergeFrom(gpu0)
    second = made.devices.add(
        needed_bytes=4 * GIB,
        shape=1,
        remedy="release reservations/r-4m2k",
        expected_time=moment(54),
    )
    second.MergeFrom(gpu0)
    made.devices.add(
        device="devices/SIM-0001",
        alias="gpu1",
        needed_bytes=4 * GIB,
        grantable_bytes=5 * GIB,
        total_bytes=6 * GIB,
        fits=True,
        shape=1,
    )
    return made


def footprint() -> m.Footprint:
    return m.Footprint(
        items=[
            m.FootprintItem(
                what=m.FOOTPRINT_WHAT_WEIGHTS, bytes=668 * MIB, source="tensors of the file"
            ),
            m.FootprintItem(
                what=m.FOOTPRINT_WHAT_KV_CACHE,
                bytes=48 * MIB,
                source="12 layers × 2 × 512 cells × f16",
            ),
            m.FootprintItem(what=m.FOOTPRINT_WHAT_MARGIN, bytes=36 * MIB, source="5 %"),
        ],
        total_bytes=752 * MIB,
        margin_bytes=36 * MIB,
        confidence=m.CONFIDENCE_LAW,
        device="devices/SIM-0000",
    )


def model() -> m.Model:
    return m.Model(
        name="models/tiny",
        engine=n.ENGINE_LLAMA_CPP,
        kind=m.MODEL_KIND_CHAT,
        options=m.ModelOptions(context_length=512, parallel=1),
        files=[m.ModelFile(path="tiny.gguf", size_bytes=668 * MIB)],
        architecture="llama",
        parameter_count=1_100_000_000,
        context_length_trained=2048,
        footprint=footprint(),
    )


def instance(state: int = i.INSTANCE_STATE_READY) -> i.Instance:
    made = i.Instance(
        name="instances/tiny-7f3k",
        model="models/tiny",
        engine=n.ENGINE_LLAMA_CPP,
        state=state,
        reservation="reservations/r-9zzz",
        devices=["devices/SIM-0000"],
        footprint=footprint(),
        create_time=moment(-2),
        containment="session",
        owner="ada@rig",
    )
    if state == i.INSTANCE_STATE_READY:
        made.endpoint = "http://127.0.0.1:41234"
        made.pid = 4242
        made.measured_bytes = 700 * MIB
        made.load_duration.CopyFrom(Duration(seconds=1, nanos=500_000_000))
        made.tokens_per_second = 812.5
        made.metrics.CopyFrom(metrics())
    return made


def metrics() -> i.InstanceMetrics:
    """Of a llama-server: its slots are full, it has no histograms and counts no requests."""
    return i.InstanceMetrics(
        time=moment(0),
        requests_running=2,
        requests_waiting=3,
        slots=2,
        slots_full=True,
        slots_busy=1.75,
        generated_tokens_per_second=812.0,
        prompt_tokens_per_second=12.5,
        cache_hit_ratio=0.6,
        generated_tokens_total=90_000,
        prompt_tokens_total=4_000,
        cached_tokens_total=6_000,
        time_to_first_token=i.Latency(
            p50=Duration(nanos=35_000_000), p99=Duration(nanos=120_000_000), source="benchmark"
        ),
        request=i.Latency(
            p50=Duration(nanos=800_000_000), p99=Duration(seconds=2), source="benchmark"
        ),
        service="voice",
    )


def load_steps() -> list[i.LoadModelResponse]:
    def step(phase: int, millis: int, detail: str, **more: object) -> i.LoadModelResponse:
        ready = phase == i.LOAD_PHASE_READY
        state = i.INSTANCE_STATE_READY if ready else i.INSTANCE_STATE_LOADING
        return i.LoadModelResponse(
            instance=instance(state),
            phase=phase,
            detail=detail,
            elapsed=Duration(seconds=millis // 1000, nanos=millis % 1000 * 10**6),
            **more,
        )

    return [
        step(i.LOAD_PHASE_DETECT, 10, "2 devices answer"),
        step(i.LOAD_PHASE_VERIFY, 20, "tiny.gguf, 668 MiB"),
        step(i.LOAD_PHASE_ALLOCATE, 40, "752 MiB on gpu0"),
        step(i.LOAD_PHASE_LOAD, 100, "\x1b[31mweights\x07", fraction=0.25),
        step(i.LOAD_PHASE_LOAD, 700, "weights", fraction=0.75),
        step(i.LOAD_PHASE_READY, 1500, "http://127.0.0.1:41234"),
    ]


def unload_steps() -> list[i.UnloadModelResponse]:
    return [
        i.UnloadModelResponse(
            instance=instance(i.INSTANCE_STATE_DRAINING), phase=i.UNLOAD_PHASE_DRAIN
        ),
        i.UnloadModelResponse(
            instance=instance(i.INSTANCE_STATE_STOPPED),
            phase=i.UNLOAD_PHASE_STOPPED,
            elapsed=Duration(nanos=250_000_000),
            freed_bytes=700 * MIB,
        ),
    ]


def event(sequence: int = 7) -> n.Event:
    return n.Event(
        sequence=sequence,
        time=moment(sequence),
        type="reservation.granted",
        subject="reservations/r-4m2k",
        actor="ada@rig",
        reason="fits",
        details={"bytes": "4294967296"},
    )


def snapshot(sequence: int = 1) -> t.Snapshot:
    shown = card(0)
    shown.sample.processes.add(
        pid=77,
        process_name="miner\x1b]0;owned\x07",
        used_bytes=256 * MIB,
        kind=d.PROCESS_KIND_COMPUTE,
    )
    return t.Snapshot(
        sequence=sequence,
        time=Timestamp(seconds=NOW + sequence, nanos=250_000_000),
        devices=[shown],
        host=t.HostReadings(cpu_percent=12.5, memory_total_bytes=16 * GIB),
    )
