"""Reserve, Renew, Release: idempotent, fenced, durable, expiring."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import grpc
from google.protobuf.duration_pb2 import Duration

from gpud.devices.processes import read_stat
from gpud.v1 import devices_pb2, node_pb2
from gpud.v1 import reservations_pb2 as pb
from tests.rpc.asking import PATIENCE_SECONDS
from tests.running import GIB, Api, Gpud, calling, refused

Code = grpc.StatusCode


async def reserve(api: Api, size: int = GIB, **fields: object) -> pb.Reservation:
    answer = await api.reservations.Reserve(pb.ReserveRequest(bytes=size, **fields))
    return answer.reservation


async def granted_bytes(api: Api, alias: str) -> int:
    answer = await api.devices.GetDevice(devices_pb2.GetDeviceRequest(name=alias))
    return answer.device.granted_bytes


async def listed(api: Api) -> set[str]:
    answer = await api.reservations.ListReservations(pb.ListReservationsRequest(page_size=1000))
    return {each.name for each in answer.reservations}


async def test_a_promise_shows_everywhere_at_once(api: Api) -> None:
    made = await reserve(api, devices=["gpu1"], owner="anna@host", labels={"job": "a"})

    assert made.state == pb.RESERVATION_STATE_GRANTED
    assert made.kind == pb.RESERVATION_KIND_LEASED
    assert (made.owner, dict(made.labels), made.generation) == ("anna@host", {"job": "a"}, 1)
    assert [grant.bytes for grant in made.grants] == [GIB]
    assert made.environment["GPUD_RESERVATION"] == made.name.removeprefix("reservations/")
    assert f"devices/{made.environment['CUDA_VISIBLE_DEVICES']}" == made.grants[0].device
    assert await granted_bytes(api, "gpu1") == GIB
    got = await api.reservations.GetReservation(pb.GetReservationRequest(name=made.name))
    assert got.reservation == made

    released = (
        await api.reservations.Release(pb.ReleaseRequest(name=made.name, generation=1))
    ).reservation
    assert released.state == pb.RESERVATION_STATE_RELEASED
    assert await granted_bytes(api, "gpu1") == 0


async def test_a_set_of_devices_is_granted_whole_or_not_at_all(api: Api) -> None:
    await reserve(api, 5 * GIB, devices=["gpu3"])
    refusal = await refused(
        api.reservations.Reserve(pb.ReserveRequest(bytes=GIB, devices=["gpu2", "gpu3"]))
    )
    assert refusal.code is Code.RESOURCE_EXHAUSTED
    assert refusal.metadata["gpu3.granted_bytes"] == str(5 * GIB)
    assert await granted_bytes(api, "gpu2") == 0

    made = await reserve(api, GIB, device_count=3)
    assert len({grant.device for grant in made.grants}) == 3


async def test_the_host_is_chosen_only_by_name_or_kind(api: Api) -> None:
    size = 10 * 1024**2
    assert "HOST" not in (await reserve(api, size)).grants[0].device
    by_name = await reserve(api, size, devices=["host"])
    by_kind = await reserve(api, size, kind=devices_pb2.DEVICE_KIND_HOST)
    assert by_name.grants[0].device == by_kind.grants[0].device
    assert by_name.environment["CUDA_VISIBLE_DEVICES"] == ""


async def test_the_same_request_id_is_the_same_reservation(api: Api) -> None:
    first = await reserve(api, devices=["gpu0"], request_id="same")
    again = await reserve(api, devices=["gpu0"], request_id="same")
    assert again == first
    assert await granted_bytes(api, "gpu0") == GIB


async def test_the_same_request_id_while_the_first_is_in_flight(api: Api) -> None:
    made = await asyncio.gather(
        *(reserve(api, devices=["gpu0"], request_id="flight") for _ in range(50))
    )
    assert len({each.name for each in made}) == 1
    assert await granted_bytes(api, "gpu0") == GIB


async def test_the_same_request_id_with_another_body_is_refused(api: Api) -> None:
    made = await reserve(api, devices=["gpu0"], request_id="body")
    other = api.reservations.Reserve(
        pb.ReserveRequest(bytes=GIB + 1, devices=["gpu0"], request_id="body")
    )
    method = api.reservations.Release(pb.ReleaseRequest(name=made.name, request_id="body"))
    for call in (other, method):
        refusal = await refused(call)
        assert (refusal.code, refusal.fields) == (Code.INVALID_ARGUMENT, ("request_id",))
    assert await granted_bytes(api, "gpu0") == GIB


async def test_a_refusal_is_not_remembered(api: Api) -> None:
    blocker = await reserve(api, 5 * GIB, devices=["gpu0"])
    asked = pb.ReserveRequest(bytes=GIB, devices=["gpu0"], request_id="later")
    assert (await refused(api.reservations.Reserve(asked))).code is Code.RESOURCE_EXHAUSTED
    await api.reservations.Release(pb.ReleaseRequest(name=blocker.name))
    answer = await api.reservations.Reserve(asked)
    assert answer.reservation.state == pb.RESERVATION_STATE_GRANTED


async def test_renew_and_release_are_idempotent_by_request_id(api: Api) -> None:
    made = await reserve(api, ttl=Duration(seconds=60))
    renewing = pb.RenewRequest(name=made.name, request_id="renew", ttl=Duration(seconds=500))
    first = (await api.reservations.Renew(renewing)).reservation
    again = (await api.reservations.Renew(renewing)).reservation
    assert first == again
    assert first.ttl.seconds == 500
    assert first.generation == made.generation  # a renewal fences nobody

    ending = pb.ReleaseRequest(name=made.name, request_id="end")
    assert await api.reservations.Release(ending) == await api.reservations.Release(ending)


async def test_validate_only_changes_nothing(api: Api) -> None:
    before, journal = await listed(api), await newest_event(api)
    told = await reserve(api, devices=["gpu2"], validate_only=True, request_id="dry")
    assert told.grants[0].bytes == GIB
    refusal = await refused(
        api.reservations.Reserve(pb.ReserveRequest(bytes=100 * GIB, validate_only=True))
    )
    assert refusal.reason == "VRAM_INSUFFICIENT"
    assert (await listed(api), await newest_event(api)) == (before, journal)
    assert await granted_bytes(api, "gpu2") == 0
    # Nor is its request id taken.
    assert (await reserve(api, devices=["gpu2"], request_id="dry")).name != told.name


async def newest_event(api: Api) -> int:
    answer = await api.node.ListEvents(node_pb2.ListEventsRequest(page_size=1))
    return answer.events[0].sequence


async def test_a_stale_generation_is_fenced(api: Api) -> None:
    made = await reserve(api)
    for call in (
        api.reservations.Renew(pb.RenewRequest(name=made.name, generation=7)),
        api.reservations.Release(pb.ReleaseRequest(name=made.name, generation=0)),
    ):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (Code.ABORTED, "GENERATION_MISMATCH")
        assert refusal.metadata["current"] == "1"
    got = await api.reservations.GetReservation(pb.GetReservationRequest(name=made.name))
    assert got.reservation == made


async def test_a_lease_ends_by_itself_and_says_so(api: Api) -> None:
    watch = api.node.WatchEvents(
        node_pb2.WatchEventsRequest(
            type="reservation.expired", after_sequence=await newest_event(api)
        )
    )
    made = await reserve(api, devices=["gpu1"], ttl=Duration(seconds=1))
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for told in watch:
            if told.event.subject == made.name:
                break
    ended = (
        await api.reservations.GetReservation(pb.GetReservationRequest(name=made.name))
    ).reservation
    assert ended.state == pb.RESERVATION_STATE_EXPIRED
    # Never early; how soon is what the watch waits for.
    lived = ended.end_time.ToMicroseconds() - made.create_time.ToMicroseconds()
    assert lived >= 1_000_000
    assert await granted_bytes(api, "gpu1") == 0
    refusal = await refused(api.reservations.Renew(pb.RenewRequest(name=made.name)))
    assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "WRONG_STATE")


async def test_releasing_twice_is_no_error(api: Api) -> None:
    made = await reserve(api)
    first = await api.reservations.Release(pb.ReleaseRequest(name=made.name))
    assert await api.reservations.Release(pb.ReleaseRequest(name=made.name)) == first


async def test_what_was_acknowledged_survives_sigkill(gpud: Callable[..., Gpud]) -> None:
    daemon = gpud().start()
    async with calling(daemon) as api:
        kept = await reserve(api, devices=["gpu0"], request_id="kept", ttl=Duration(seconds=300))
        gone = await reserve(api, devices=["gpu1"])
        await api.reservations.Release(pb.ReleaseRequest(name=gone.name))
        short = await reserve(api, devices=["gpu2"], ttl=Duration(seconds=1))
    daemon.restart()
    async with calling(daemon) as api:
        got = await api.reservations.GetReservation(pb.GetReservationRequest(name=kept.name))
        assert got.reservation == kept  # its deadline is not refilled
        assert (
            await reserve(api, devices=["gpu0"], request_id="kept", ttl=Duration(seconds=300))
            == kept
        )
        assert [await granted_bytes(api, alias) for alias in ("gpu0", "gpu1")] == [GIB, 0]
        async with asyncio.timeout(PATIENCE_SECONDS):
            watch = api.node.WatchEvents(
                node_pb2.WatchEventsRequest(type="reservation.expired", after_sequence=0)
            )
            async for told in watch:
                assert told.event.subject == short.name
                break
        other = pb.ReserveRequest(bytes=1, devices=["gpu0"], request_id="kept")
        assert (await refused(api.reservations.Reserve(other))).fields == ("request_id",)


async def test_grants_wait_for_the_first_samples_and_reads_do_not(
    gpud: Callable[..., Gpud],
) -> None:
    """RECONCILING: a name of a device is not unknown because nothing was sampled yet."""
    daemon = gpud()
    scenario = daemon.directory / "scenario.json"
    scenario.write_text('{"gpu0": {"hang": true}}')
    daemon.devices = f'scenario = "{scenario}"'
    with daemon.started():
        async with calling(daemon) as api:
            node = await api.node.GetNode(node_pb2.GetNodeRequest(), wait_for_ready=True)
            assert node.node.state == node_pb2.NODE_STATE_RECONCILING
            for name in ("gpu0", "gpu1"):
                refusal = await refused(
                    api.reservations.Reserve(pb.ReserveRequest(bytes=1, devices=[name]))
                )
                assert (refusal.code, refusal.reason) == (Code.UNAVAILABLE, "RECONCILING")
            assert await listed(api) == set()


async def test_a_process_that_started_at_another_moment_is_another(api: Api) -> None:
    made = (await api.reservations.Reserve(pb.ReserveRequest(bytes=GIB))).reservation
    started = read_stat(os.getpid()).start_time
    asked = pb.AttachProcessRequest(name=made.name, pid=os.getpid(), start_time=started + 1)
    refusal = await refused(api.reservations.AttachProcess(asked))
    assert (refusal.code, refusal.fields) == (Code.INVALID_ARGUMENT, ("start_time",))
    asked.start_time = started
    told = (await api.reservations.AttachProcess(asked)).reservation
    assert [each.pid for each in told.attachments] == [os.getpid()]


async def test_an_attachment_that_is_asked_again_is_the_same_when_its_process_has_gone(
    api: Api,
) -> None:
    made = (await api.reservations.Reserve(pb.ReserveRequest(bytes=GIB))).reservation
    child = await asyncio.create_subprocess_exec("sleep", "60")
    asked = pb.AttachProcessRequest(name=made.name, pid=child.pid, request_id="attach-once")
    first = (await api.reservations.AttachProcess(asked)).reservation
    child.kill()
    await child.wait()
    again = (await api.reservations.AttachProcess(asked)).reservation
    assert again.attachments == first.attachments
