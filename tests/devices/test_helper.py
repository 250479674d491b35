"""The sampling process from the inside: ticks over fake drivers, its frames, its schedule."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from gpud.clock import SystemClock
from gpud.devices.driver import Driver, DriverUnavailable
from gpud.devices.processes import ProcessTable
from gpud.devices.sampling.child import MODULE, child_environment
from gpud.devices.sampling.fleet import REOPEN_SECONDS, Fleet
from gpud.devices.sampling.frames import (
    MAX_FRAME_BYTES,
    Alarm,
    Answer,
    AnyFrame,
    FrameEncoder,
    FrameParser,
    Inventory,
    Orders,
    Remark,
    SamplerSettings,
    TickBegan,
    TickEnded,
    Unanswered,
)
from gpud.devices.sampling.helper import FrameWriter, Helper, Schedule, obey
from gpud.devices.sampling.reader import Reader
from gpud.devices.snapshot import DeviceKind, HostReadings, Readings, Trouble
from tests.fakes.clock import FakeClock
from tests.fakes.driver import GIB, FakeDriver


class Floor:
    """A helper over fake drivers, and what it sent."""

    def __init__(
        self,
        nvml: Callable[[], Driver],
        only: str = "",
        skipped: tuple[str, ...] = (),
        settings: SamplerSettings | None = None,
        patience_seconds: float = 60.0,  # no device hangs: one that is slow is awaited
    ) -> None:
        self.clock = FakeClock()
        self.simulated = FakeDriver("SIM-0", kind=DeviceKind.SIMULATED)
        self.sent: list[AnyFrame] = []
        orders = Orders(
            settings=settings or SamplerSettings(),
            host_uuid="HOST-0",
            only=only,
            skipped=skipped,
        )
        fleet = Fleet(
            orders,
            {"nvml": lambda _: nvml(), "simulated": lambda _: self.simulated},
            set(skipped),
            self.clock,
            self.sent.append,
        )
        self.helper = Helper(fleet, ProcessTable(), only, self.sent.append, self.clock)
        self.helper._reader = Reader(self.helper._ask, self.sent.append, patience_seconds)

    def tick(self) -> list[AnyFrame]:
        self.sent.clear()
        self.helper.tick()
        return self.sent

    def answers(self) -> dict[str, Answer]:
        return {frame.uuid: frame for frame in self.tick() if isinstance(frame, Answer)}


def test_a_mark_tells_whom_it_asks() -> None:
    floor = Floor(lambda: FakeDriver("GPU-a", "GPU-b"))
    marked: list[str] = []
    floor.helper.mark = marked.append
    floor.tick()
    found, *read = "".join(f"{uuid} " for uuid in marked).split("  ")
    # To find a card is to ask it, too.
    assert found == "SIM-0 GPU-a GPU-b"
    # The driver that can hang is read last.
    assert read == ["SIM-0", "GPU-a", "GPU-b", ""]


def test_an_ordinary_tick_leaves_in_one_piece() -> None:
    floor = Floor(lambda: FakeDriver("GPU-a", "GPU-b"))
    # Only the driver is named, before it is asked for its devices.
    assert [frame.then for frame in floor.tick()] == ["nvml", "", "", "", "", ""]
    reader, writer = os.pipe()
    try:
        send = FrameWriter(writer).send
        *before, last = floor.tick()
        for frame in before:
            send(frame)
        os.set_blocking(reader, False)
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
        send(last)
        assert list(FrameParser().feed(os.read(reader, 65536))) == [*before, last]
    finally:
        os.close(reader)
        os.close(writer)


def test_cards_that_hang_hold_up_no_other_and_answer_late() -> None:
    card = FakeDriver("GPU-a", "GPU-b", "GPU-c")
    floor = Floor(lambda: card, patience_seconds=0.5)
    floor.tick()
    go = card.hang("GPU-a", "GPU-b")
    frames = list(floor.tick())
    assert [frame.uuid for frame in frames if isinstance(frame, Unanswered)] == ["GPU-a", "GPU-b"]
    assert [frame.uuid for frame in frames if isinstance(frame, Answer)] == ["SIM-0", "GPU-c"]
    assert isinstance(frames[-1], TickEnded)
    # They are neither asked nor waited for again, and the driver is not asked for its devices.
    obey(floor.helper, "list")
    assert [type(frame) for frame in floor.tick()] == [TickBegan, Answer, Answer, TickEnded]
    go.set()
    wait_until(lambda: len(floor.sent) == 6)
    late = [frame for frame in floor.sent[4:] if isinstance(frame, Answer)]
    assert {(answer.uuid, answer.then) for answer in late} == {("GPU-a", None), ("GPU-b", None)}
    again = floor.tick()
    assert sum(isinstance(frame, Answer) for frame in again) == 4
    assert sum(isinstance(frame, Inventory) for frame in again) == 1


def test_lists_are_read_with_the_memory_when_asked_for() -> None:
    card = FakeDriver("GPU-a")
    card.use("GPU-a", 7, "r-7")
    floor = Floor(lambda: card)
    first, second = floor.answers()["GPU-a"], floor.answers()["GPU-a"]
    assert first.listed
    assert first.processes == card.listed["GPU-a"]
    assert not second.listed
    assert second.processes is None
    obey(floor.helper, "list")
    assert floor.answers()["GPU-a"].listed


def test_a_list_that_is_refused_once_is_told_apart_from_none_at_all() -> None:
    card = FakeDriver("GPU-a")
    card.listed["GPU-a"] = None
    floor = Floor(lambda: card)
    never = floor.answers()["GPU-a"]
    assert (never.listed, never.refused, never.processes) == (True, False, None)
    card.silent.add("GPU-a")
    obey(floor.helper, "list")
    silent = floor.answers()["GPU-a"]
    assert (silent.listed, silent.refused, silent.processes) == (True, True, None)
    assert silent.readings.memory_used_bytes == GIB


def test_a_lost_device_hides_no_other() -> None:
    card = FakeDriver("GPU-a", "GPU-b")
    card.lost.add("GPU-a")
    answers = Floor(lambda: card).answers()
    assert answers["GPU-a"].lost_reason
    assert not answers["GPU-a"].listed
    assert answers["GPU-b"].readings.memory_used_bytes == GIB


def test_a_device_that_is_listed_no_more_costs_no_call() -> None:
    card = FakeDriver("GPU-a", "GPU-b")
    floor = Floor(lambda: card)
    floor.tick()
    gone = card.infos.pop("GPU-a")
    obey(floor.helper, "list")
    marked: list[str] = []
    floor.helper.mark = marked.append
    assert "GPU-a" not in floor.answers()
    floor.tick()
    assert "GPU-a" not in marked
    card.infos["GPU-a"] = gone
    obey(floor.helper, "list")
    assert "GPU-a" in floor.answers()


def test_a_skipped_device_is_not_touched_until_it_is_taken_again() -> None:
    floor = Floor(lambda: FakeDriver("GPU-a", "GPU-b"), skipped=("GPU-a",))
    assert list(floor.answers()) == ["SIM-0", "GPU-b"]
    obey(floor.helper, "take GPU-a")
    assert floor.answers()["GPU-a"].listed


def test_a_skipped_driver_is_not_opened_until_it_is_taken_again() -> None:
    floor = Floor(lambda: FakeDriver("GPU-a"), skipped=("nvml",))
    frames = floor.tick()
    assert [frame.uuid for frame in frames if isinstance(frame, Answer)] == ["SIM-0"]
    # "Opening" tells the daemon that its devices are not gone.
    assert [frame.opening for frame in frames if isinstance(frame, Inventory)] == [("nvml",)]
    obey(floor.helper, "take nvml")
    wait_until(lambda: "GPU-a" in floor.answers())


def test_a_probe_reads_its_device_alone() -> None:
    floor = Floor(lambda: FakeDriver("GPU-a", "GPU-b"), only="GPU-b")
    assert list(floor.answers()) == ["GPU-b"]
    # It has nothing else to do, and says whom it waits for.
    assert [frame.then for frame in floor.tick()] == ["GPU-b", "", ""]


def test_a_probe_of_the_driver_reads_no_device() -> None:
    floor = Floor(lambda: FakeDriver("GPU-a"), only="nvml")
    assert [type(frame) for frame in floor.tick()] == [TickBegan, Inventory, TickEnded]


def test_a_driver_that_opens_slowly_holds_up_nothing() -> None:
    go = threading.Event()

    def open_slowly() -> Driver:
        go.wait(60)
        return FakeDriver("GPU-a")

    floor = Floor(open_slowly)
    frames = floor.tick()
    assert [frame.uuid for frame in frames if isinstance(frame, Answer)] == ["SIM-0"]
    assert [frame.opening for frame in frames if isinstance(frame, Inventory)] == [("nvml",)]
    go.set()
    wait_until(lambda: "GPU-a" in floor.answers())


def test_a_missing_driver_is_told_once_and_tried_again_rarely() -> None:
    attempts = itertools.count(1)
    tries = 0

    def refuse() -> Driver:
        nonlocal tries
        tries = next(attempts)
        raise DriverUnavailable(driver="nvml", reason="not installed", is_absent=True)

    floor = Floor(refuse)
    told = [frame for frame in floor.sent if isinstance(frame, Remark)]
    assert [(remark.level, remark.event) for remark in told] == [("info", "driver.unavailable")]
    assert [f.unavailable for f in floor.tick() if isinstance(f, Inventory)] == [
        {"nvml": "not installed"}
    ]
    floor.clock.advance(REOPEN_SECONDS - 1)
    floor.tick()
    assert tries == 1
    floor.clock.advance(1)
    wait_until(lambda: bool(floor.tick()) and tries == 2)
    assert not [frame for frame in floor.tick() if isinstance(frame, Remark)]


def test_errors_are_told_once_a_tick_before_their_devices_are_read() -> None:
    card = FakeDriver("GPU-a", "GPU-b")
    floor = Floor(lambda: card)
    floor.tick()
    card.reported = [("GPU-b", 79), ("GPU-b", 31)]
    kinds = [type(frame) for frame in floor.tick()]
    # The simulated card is another driver's, and comes first.
    assert kinds == [TickBegan, Answer, Alarm, Alarm, Answer, Answer, TickEnded]
    assert [frame for frame in floor.sent if isinstance(frame, Alarm)] == [
        Alarm(uuid="GPU-b", xids=(79,)), Alarm(uuid="GPU-b", xids=(31,)),
    ]  # fmt: skip
    assert not [frame for frame in floor.tick() if isinstance(frame, Alarm)]


def test_a_probe_leaves_errors_to_the_process_beside_it() -> None:
    card = FakeDriver("GPU-a")
    floor = Floor(lambda: card, only="GPU-a")
    card.reported = [("GPU-a", 79)]
    assert [frame.uuid for frame in floor.tick() if isinstance(frame, Answer)] == ["GPU-a"]
    assert card.reported == [("GPU-a", 79)]


def test_troubles_are_of_drivers_that_are_here_or_wanted_until_they_open() -> None:
    reasons = ["the kernel driver is not loaded"]

    def refuse() -> Driver:
        if reasons:
            raise DriverUnavailable(driver="nvml", reason=reasons[0])
        return FakeDriver("GPU-a")

    floor = Floor(refuse)

    def troubles() -> tuple[Trouble, ...]:
        obey(floor.helper, "list")
        (inventory,) = [frame for frame in floor.tick() if isinstance(frame, Inventory)]
        return inventory.troubles

    (trouble,) = troubles()
    assert trouble.words == "cannot use the nvml driver: the kernel driver is not loaded"
    assert not trouble.is_wanted
    reasons.clear()
    floor.clock.advance(REOPEN_SECONDS)
    wait_until(lambda: troubles() == ())


def test_a_driver_that_is_uninstalled_is_no_trouble_any_more() -> None:
    refusals = [
        DriverUnavailable(driver="nvml", reason="not installed", is_absent=True),
        DriverUnavailable(driver="nvml", reason="of different versions"),
    ]

    def refuse() -> Driver:
        raise refusals.pop() if refusals else AssertionError

    floor = Floor(refuse)

    def inventory() -> Inventory:
        obey(floor.helper, "list")
        (found,) = [frame for frame in floor.tick() if isinstance(frame, Inventory)]
        return found

    assert [each.reason for each in inventory().troubles] == ["of different versions"]
    floor.clock.advance(REOPEN_SECONDS)
    wait_until(lambda: inventory().unavailable == {"nvml": "not installed"})
    assert inventory().troubles == ()


def test_a_missing_driver_that_is_wanted_is_warned_of_with_the_way_out() -> None:
    def refuse() -> Driver:
        raise DriverUnavailable(driver="nvml", reason="not installed", is_absent=True)

    floor = Floor(refuse, settings=SamplerSettings(nvml="on"))
    (told,) = [frame for frame in floor.sent if isinstance(frame, Remark)]
    assert told.level == "warning"
    assert "not installed" in told.detail
    assert 'devices.nvml = "on"' in told.detail
    assert 'write "auto"' in told.detail


def test_a_driver_that_goes_away_is_closed_and_its_devices_are_not_listed() -> None:
    card = FakeDriver("GPU-a")
    floor = Floor(lambda: card)
    floor.tick()
    card.unavailable = "the module was unloaded"
    obey(floor.helper, "list")
    (inventory,) = [frame for frame in floor.tick() if isinstance(frame, Inventory)]
    assert [info.uuid for info in inventory.devices] == ["SIM-0"]
    assert inventory.unavailable == {"nvml": "the module was unloaded"}
    assert card.is_closed


def test_ticks_do_not_drift_and_missed_ones_are_left_out() -> None:
    schedule = Schedule(0.1, start=5.0)
    assert schedule.next(5.0) == pytest.approx(5.1)
    assert schedule.next(5.1799) == pytest.approx(5.2)
    assert schedule.next(7.25) == pytest.approx(7.3)
    # Late by a little each time: the thousandth is not late by all of it.
    now = 5.0
    for _ in range(1000):
        now = schedule.next(now) + 0.03
    assert now == pytest.approx(5.0 + 1000 * 0.1 + 0.03)


def test_the_interval_has_a_floor() -> None:
    assert Schedule(0.0, start=5.0).next(5.0) == pytest.approx(5.01)


def test_frames_survive_being_cut_anywhere() -> None:
    answer = Answer(
        uuid="GPU-a",
        boottime=1.0,
        wall=2.0,
        readings=Readings(memory_used_bytes=2**40, power_watts=1.5),
        listed=True,
        processes=(),
        then="GPU-b",
    )
    frames = [answer, TickEnded(host=HostReadings(load_average=0.5)), answer]
    encoder = FrameEncoder()
    stream = encoder.encode(frames[:1]) + encoder.encode(frames[1:])
    parser = FrameParser()
    parsed = [frame for byte in stream for frame in parser.feed(bytes([byte]))]
    assert parsed == frames
    assert list(FrameParser().feed(stream)) == frames


def test_garbage_is_no_frame() -> None:
    with pytest.raises(ValueError, match="a batch of"):
        list(FrameParser().feed((MAX_FRAME_BYTES + 1).to_bytes(4, "little")))
    with pytest.raises(msgspec.MsgspecError):
        list(FrameParser().feed(b"\x03\0\0\0abc"))


def test_it_ends_with_its_stdin_even_in_a_call_that_hangs(tmp_path: Path) -> None:
    scenario = tmp_path / "scenario.json"
    scenario.write_text('{"gpu0": {"hang": true}}')
    settings = SamplerSettings(nvml="off", simulated=(("t4", 1),), scenario=str(scenario))
    orders = msgspec.json.encode(Orders(settings=settings, host_uuid="HOST-0"))
    with subprocess.Popen(
        [sys.executable, "-P", "-m", MODULE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=child_environment(os.environ),
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(orders + b"\n")
        process.stdin.flush()
        parser = FrameParser()
        told: list[AnyFrame] = []
        while Unanswered(uuid="SIM-t4-0") not in told:
            told += parser.feed(os.read(process.stdout.fileno(), 65536))
        process.stdin.close()
        assert process.wait(timeout=60) == 0


def test_it_carries_no_event_loop_and_no_grpc() -> None:
    code = (
        f"import sys, {MODULE}; print([m for m in ('asyncio', 'grpc', 'pynvml', 'ssl', 'psutil')"
    )
    code += " if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env=child_environment(os.environ),
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert found.stdout == b"[]\n"


def test_the_daemons_environment_is_passed_on_without_grpcs() -> None:
    passed = child_environment({"LD_LIBRARY_PATH": "/x", "GRPC_TRACE": "all", "PYTHONPATH": "/y"})
    assert passed["LD_LIBRARY_PATH"] == "/x"
    assert "GRPC_TRACE" not in passed
    assert passed["PYTHONPATH"].endswith(f"{os.pathsep}/y")


def wait_until(holds: Callable[[], bool]) -> None:
    """Something that another thread is about to make true."""
    clock = SystemClock()
    deadline = clock.now().boottime + 60
    while not holds():
        assert clock.now().boottime < deadline, "it never came true"
