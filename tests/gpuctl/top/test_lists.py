"""The lists of `gpuctl top`, of a real daemon with simulated cards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from google.protobuf.duration_pb2 import Duration

from gpuctl.top.grid import Grid
from gpud.v1 import devices_pb2, reservations_pb2
from tests.gpuctl.top.conftest import GIB, Rig
from tests.gpuctl.top.driving import Seen, on_screen
from tests.running import Api

FOREIGN = {"pid": 4242, "bytes": 10 * GIB}


async def reserve(api: Api, gib: int, device: str, **more: object) -> reservations_pb2.Reservation:
    request = reservations_pb2.ReserveRequest(
        bytes=gib * GIB, devices=[device], owner="ada", ttl=Duration(seconds=600), **more
    )
    return (await api.reservations.Reserve(request)).reservation


async def release(api: Api, name: str) -> None:
    await api.reservations.Release(reservations_pb2.ReleaseRequest(name=name))


@asynccontextmanager
async def reserved(api: Api, gib: int, device: str, **more: object) -> AsyncIterator[str]:
    held = await reserve(api, gib, device, **more)
    try:
        yield held.name.removeprefix("reservations/")
    finally:
        await release(api, held.name)


@asynccontextmanager
async def seen(rig: Rig, **more: object) -> AsyncIterator[Seen]:
    """Once it shows the devices."""
    async with on_screen(rig.gpud.address, **more) as screen:  # type: ignore[arg-type]
        await screen.until(lambda: screen.row("gpu2"))
        yield screen


async def test_what_the_cards_show(rig: Rig) -> None:
    rig.script(
        gpu0={"unsupported": ["utilization_percent", "temperature_celsius"]},
        gpu1={"lost": True},
        gpu2={"temperature_celsius": 86, "utilization_percent": 90, "foreign": [FOREIGN]},
    )
    async with seen(rig) as screen:
        await screen.until(lambda: screen.cells("devices", "gpu2").get("UTIL") == "90%")
        await screen.until(lambda: screen.cells("devices", "gpu1").get("HEALTH") == "LOST")
        hot = screen.cells("devices", "gpu2")
        assert (hot["USED"], hot["TEMP"], hot["HEALTH"]) == ("10/24G", "86°C", "HOT")
        assert hot["MEMORY"] == "▓" * 3 + "·" * 5
        assert hot["5 MIN"][-1] > " "
        lost = screen.cells("devices", "gpu1")
        assert {lost[name] for name in ("UTIL", "TEMP", "FREE", "PRESSURE")} == {"-"}
        refused = screen.cells("devices", "gpu0")
        assert (refused["UTIL"], refused["TEMP"], refused["USED"]) == ("-", "-", "0/24G")
        assert screen.row("host")
        await screen.shows("gpud 0.1", "READY", "cpu ")
        await screen.until(lambda: "gpu1" in screen.lines[2])  # the worst of what is wrong
        assert max(map(len, screen.lines)) <= 80


async def test_promises_and_the_queue(rig: Rig, api: Api) -> None:
    async with seen(rig) as screen:
        assert "Reservations 0" in screen.text
        async with reserved(api, 20, "gpu0") as held:
            await screen.until(lambda: screen.cells("devices", "gpu0")["FREE"].startswith("3."))
            assert screen.cells("devices", "gpu0")["MEMORY"] == "▒▒▒▒▒▒▒·"
            await screen.press("3")
            await screen.until(lambda: screen.cells("reservations", held))
            row = screen.cells("reservations", held)
            assert (row["OWNER"], row["STATE"], row["ON"]) == ("ada", "GRANTED", "gpu0")
            assert (row["BYTES"], row["IN USE"]) == ("20G", "0")
            async with reserved(api, 10, "gpu0", max_wait=Duration(seconds=600)):
                await screen.shows("Queue 1")
                await screen.press("4")
                await screen.until(lambda: screen.cells("queue", "1"))
                waits = screen.cells("queue", "1")
                assert (waits["OWNER"], waits["ASKS"]) == ("ada", "10G")
                assert "on gpu0" in waits["FOR WHAT"]
            await screen.shows("Queue 0", "nobody waits")
        await screen.shows("Reservations 0")


async def test_sorting_turning_and_filtering(rig: Rig) -> None:
    unknown = {"unsupported": ["utilization_percent"]}
    rig.script(gpu0={"utilization_percent": 10}, gpu1={"utilization_percent": 70}, gpu2=unknown)
    async with seen(rig) as screen:
        await screen.until(lambda: screen.cells("devices", "gpu1")["UTIL"] == "70%")
        assert screen.order("devices") == ["gpu0", "gpu1", "gpu2", "host"]
        await screen.until(lambda: screen.cells("devices", "gpu2")["UTIL"] == "-")
        # The host's is told from the second look at its CPUs on.
        await screen.until(lambda: screen.cells("devices", "host")["UTIL"] != "-")

        def cards() -> list[str]:
            # How busy the CPUs of the host are is for nobody to say.
            return [name for name in screen.order("devices") if name != "host"]

        while "by UTIL" not in screen.lines[3]:
            await screen.press("s")
        assert cards() == ["gpu1", "gpu0", "gpu2"]
        await screen.press("r")
        assert cards() == ["gpu0", "gpu1", "gpu2"]  # unknown is last
        assert screen.order("devices")[-1] == "gpu2"
        assert "by UTIL turned round" in screen.lines[3]
        await screen.press("slash", *"GPU1")
        assert screen.order("devices") == ["gpu1"]
        await screen.press("enter")
        await screen.shows("/GPU1")
        await screen.press("escape")
        assert len(screen.order("devices")) == 4
        assert "/GPU1" not in screen.text


async def test_the_filter_leaves_the_keys_to_the_list_that_had_them(rig: Rig) -> None:
    async with seen(rig) as screen:
        await screen.press("4", "1", "slash", *"gpu1")
        await screen.until(lambda: screen.order("devices") == ["gpu1"])
        assert screen.app.query_one("#filter").display
        assert "c cordon" in screen.lines[-1]
        await screen.press("enter", "enter")
        await screen.shows("pressure LOW")
        assert "gpu1" in screen.lines[0]


async def test_a_filter_that_nothing_matches_says_so(rig: Rig) -> None:
    async with seen(rig) as screen:
        await screen.shows("nothing is loaded")
        await screen.press("slash", *"zz")
        await screen.shows("no row has zz; Esc shows all")
        # Of a list that has no rows anyway it is not the filter's doing.
        assert "nothing is loaded" in screen.text
        # Whoever goes to another list needs the line of the filter no more.
        await screen.press("tab")
        await screen.until(lambda: not screen.app.query_one("#filter").display)
        await screen.press("escape")
        await screen.until(lambda: screen.row("gpu2"))


async def test_the_cursor_keeps_to_its_noun_when_rows_change_places(rig: Rig) -> None:
    rig.script(gpu0={"utilization_percent": 50}, gpu1={"utilization_percent": 40})
    async with seen(rig) as screen:
        await screen.until(lambda: screen.cells("devices", "gpu1")["UTIL"] == "40%")
        while "by UTIL" not in screen.lines[3]:
            await screen.press("s")
        grid = screen.app.query_one("#devices", Grid)
        await screen.press("home")
        while not grid.key.endswith("-0"):  # the host, while its CPUs are busier
            await screen.press("down")
        assert grid.key.endswith("-0")
        rig.script(gpu0={"utilization_percent": 5}, gpu1={"utilization_percent": 40})
        await screen.until(lambda: screen.cells("devices", "gpu0")["UTIL"] == "5%")
        order = screen.order("devices")
        assert order.index("gpu1") < order.index("gpu0")
        assert grid.key.endswith("-0")


async def test_a_device_closely(rig: Rig, api: Api) -> None:
    rig.script(gpu0={"utilization_percent": 90, "power_watts": 120, "foreign": [FOREIGN]})
    async with reserved(api, 2, "gpu0") as held, seen(rig) as screen:
        await screen.until(lambda: screen.cells("devices", "gpu0")["UTIL"] == "90%")
        await screen.press("enter")
        await screen.shows("4242", "FOREIGN", f"reservations/{held}", "2G promised, 0 in use")
        await screen.shows("util 90%", "power 120W", "heat NORMAL", "pressure LOW")
        await screen.shows("utilization_percent, 10 minutes until now: 90%")
        rig.script(gpu0={"utilization_percent": 15})
        await screen.shows("util 15%")
        await screen.press("escape")
        await screen.shows("1 Devices")


async def test_it_fits_whatever_the_size_is(rig: Rig) -> None:
    async with seen(rig) as screen:
        narrow = set(screen.cells("devices", "gpu0"))
        await screen.pilot.resize_terminal(200, 50)
        await screen.until(lambda: "POWER" in screen.cells("devices", "gpu0"))
        wide = screen.cells("devices", "gpu0")
        assert {"MODEL", "HEAT", "GRANTED", "FOREIGN"} <= set(wide) - narrow
        assert len(wide["MEMORY"]) > 20
        assert all(len(line) <= 200 for line in screen.lines)
        await screen.pilot.resize_terminal(40, 10)
        await screen.until(lambda: len(screen.lines) == 10)
        left = {"DEVICE", "MEMORY", "UTIL", "TEMP", "HEALTH"}
        await screen.until(lambda: screen.cells("devices", "gpu0").keys() == left)
        hints = "q quit  ? help  c cordon  Enter open"
        await screen.until(lambda: screen.lines[-1] == hints)
        await screen.shows("\nInst 0   Res 0   Queue 0")
        assert all(len(line) <= 40 for line in screen.lines)
        await screen.press("question_mark")
        await screen.shows("devices,")
        await screen.press("pagedown", "pagedown", "pagedown")
        await screen.shows("in use outside any promise")
        assert all(len(line) <= 40 for line in screen.lines)
        await screen.press("escape", "enter", "question_mark", "escape", "escape", "end")


async def test_cordon_asks_first(rig: Rig, api: Api) -> None:
    async def is_cordoned() -> bool:
        answer = await api.devices.GetDevice(devices_pb2.GetDeviceRequest(name="gpu0"))
        return bool(answer.device.cordoned)

    async with seen(rig) as screen:
        await screen.press("home", "c")
        await screen.shows("Cordon gpu0?", "No (n)")
        await screen.press("enter")  # alone it means no
        assert not await is_cordoned()
        await screen.press("c")
        await screen.shows("Cordon gpu0?")
        await screen.press("y")
        await screen.until(lambda: screen.cells("devices", "gpu0")["HEALTH"] == "CORDONED")
        assert await is_cordoned()
        await screen.press("c")
        await screen.shows("Uncordon gpu0?")
        await screen.press("tab", "enter")
        await screen.until(lambda: screen.cells("devices", "gpu0")["HEALTH"] == "HEALTHY")
        assert not await is_cordoned()
        # What came of it is told where the keys are, and covers no row.
        await screen.until(lambda: screen.lines[-1] == "gpu0 is granted on again")


async def test_release_and_end_waiting(rig: Rig, api: Api) -> None:
    first = await reserve(api, 20, "gpu0")
    await reserve(api, 20, "gpu0", max_wait=Duration(seconds=600))
    async with seen(rig) as screen:
        await screen.press("4")
        await screen.until(lambda: screen.order("queue") == ["1"])
        await screen.press("x")
        await screen.shows("Release reservations/r-", "It waits no longer.")
        await screen.press("y")
        await screen.shows("Queue 0", "is released")
        await screen.press("3", "x")
        await screen.shows(f"Release {first.name} of ada?", "20 GiB are given back")
        await screen.press("y")
        await screen.shows("Reservations 0")


@pytest.mark.parametrize("key", ["c", "x"])
async def test_a_read_only_view_changes_nothing(key: str, rig: Rig, api: Api) -> None:
    async with reserved(api, 1, "gpu0") as held, seen(rig, readonly=True) as screen:
        await screen.shows("read only")
        if key == "x":
            await screen.press("3")
            await screen.until(lambda: screen.cells("reservations", held))
        await screen.press(key)
        await screen.shows("this is a read-only view")
        assert len(screen.app.screen_stack) == 1
        await screen.press("question_mark")
        await screen.shows("look at the row closely")
        assert "cordon the device" not in screen.text


async def test_a_refusal_is_told(rig: Rig, api: Api) -> None:
    held = await reserve(api, 1, "gpu0")
    async with seen(rig) as screen:
        await screen.press("3")
        await screen.until(lambda: screen.order("reservations"))
        await screen.press("x")
        await screen.shows("Release")
        # Somebody else is faster.
        await release(api, held.name)
        await screen.press("y")
        await screen.shows("Reservations 0")
        assert screen.app.return_code in {None, 0}


async def test_alerts_are_listed_and_taken_on(rig: Rig) -> None:
    rig.script(gpu1={"lost": True})
    async with seen(rig) as screen:
        await screen.press("5")
        # What the tests before have left may be told for a while yet.
        await screen.press("slash", *"lost", "enter")
        await screen.until(lambda: len(screen.order("alerts")) == 1)
        await screen.shows("STATE", "CRITICAL", "gpu1")
        await screen.press("enter")
        await screen.shows("do ", "since")
        await screen.press("escape", "a")
        await screen.shows("Acknowledge lost of gpu1?", "unless it grows graver")
        await screen.press("y")
        await screen.shows("ACKNOWLEDGED")
