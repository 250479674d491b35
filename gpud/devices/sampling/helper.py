"""The sampling process: `python -m gpud.devices.sampling.helper`, one loop over every device.

It is a process of its own because a driver can hang in the kernel for ever, and whoever waits in
it cannot be killed. Devices are asked on a thread (reader.py), so that one that hangs holds up no
other. It holds nothing of the daemon and ends when its stdin does. What it is told and what it
says is in frames.py.
"""

from __future__ import annotations

import gc
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import BinaryIO, NoReturn

import msgspec

from gpud.clock import Clock, SystemClock
from gpud.devices.attached import AttachmentTable
from gpud.devices.driver import DeviceLost, Driver, DriverOutdated, ListRefused
from gpud.devices.machine.disks import DiskWatch
from gpud.devices.machine.probe import HostProbe
from gpud.devices.processes import ProcessTable
from gpud.devices.sampling.fleet import Fleet, Send, standard_openers
from gpud.devices.sampling.frames import (
    COMMAND_ATTACH,
    COMMAND_LIST,
    COMMAND_MODE,
    COMMAND_TAKE,
    COMMAND_TICK,
    Alarm,
    Answer,
    AnyFrame,
    FrameEncoder,
    Orders,
    Remark,
    TickBegan,
    TickEnded,
)
from gpud.devices.sampling.mode_setter import ModeSetter
from gpud.devices.sampling.reader import Mark, Reader
from gpud.devices.snapshot import DeviceInfo, Readings

MIN_INTERVAL_SECONDS = 0.01
# A call to a healthy device takes far less, and one that hangs is waited for only once.
PATIENCE_SECONDS = 0.05
# A longer list leaves at once: some more, and a batch were no batch any more (MAX_FRAME_BYTES).
MANY_PROCESSES = 256


class Helper:
    """Reads all devices, a tick at a time.

    Blocks for as long as NVML takes to list its cards, and a probe for as long as its one device
    takes. `send` and `mark` are called by other threads too.
    """

    def __init__(
        self, fleet: Fleet, table: ProcessTable, only: str, send: Send, clock: Clock
    ) -> None:
        self._fleet = fleet
        self._table = table
        self._only = only
        # Called with the UUID of whom is asked, and with "" once that is over.
        self.mark: Callable[[str], None] = lambda _: None
        self.disks = DiskWatch(())
        self._send = send
        self._clock = clock
        self._reader = Reader(self._ask, send, PATIENCE_SECONDS)
        self._modes = ModeSetter(send)
        self._probe = HostProbe()
        self._devices: tuple[DeviceInfo, ...] = ()
        self._wants_list = True
        # Drivers that were asked for alarms in this tick.
        self._heard: set[Driver] = set()

    def list_soon(self) -> None:
        """Look for devices and processes anew at the next tick."""
        self._wants_list = True

    def take(self, name: str) -> None:
        """Sample this device, or use this driver, again."""
        self._fleet.skipped.discard(name)
        self._wants_list = True

    def attach(self, table: AttachmentTable) -> None:
        """Whose processes are whose from the next list on."""
        self._table.attach(table)

    def set_compute_mode(self, number: int, uuid: str, mode: str) -> None:
        """Begin to set it; a device that does not answer is not asked."""
        asked = [i for i in self._devices if i.uuid == uuid and self._is_wanted(uuid)]
        self._modes.set(number, uuid, mode, self._fleet.driver(asked[0]) if asked else None)

    def tick(self) -> None:
        """Read every device once."""
        listing = self._fleet.settle() or self._wants_list
        # A driver with a call that hangs may hang for whoever asks it next.
        self._wants_list = listing and bool(self._reader.unanswered)
        now = self._clock.now()
        opening: AnyFrame = TickBegan(boottime=now.boottime, wall=now.wall)
        if listing:
            self._table.scan(now.boottime)
        if listing and not self._wants_list:
            self._send(msgspec.structs.replace(opening, then=self._fleet.may_hang))
            opening = inventory = self._fleet.inventory(self.mark)
            self.mark("")
            self._devices = inventory.devices
        plan = [info for info in self._devices if self._is_wanted(info.uuid)]
        self._heard.clear()
        if self._only:
            self._send(msgspec.structs.replace(opening, then=self._only if plan else ""))
            for info in plan:
                self._send(self._ask(info, listing=listing))
        else:
            self._send(opening)
            self._reader.read(plan, listing=listing)
        disks = self.disks.read(now.boottime)
        self._send(TickEnded(host=self._probe.read(now.boottime, disks)))

    def _is_wanted(self, uuid: str) -> bool:
        if self._only:
            return uuid == self._only
        return uuid not in self._fleet.skipped and uuid not in self._reader.unanswered

    def _ask(self, info: DeviceInfo, *, listing: bool) -> Answer:
        """Used memory and the process list right after each other, so that they agree."""
        driver = self._fleet.driver(info)
        now = self._clock.now()
        readings, processes, lost_reason, refused = Readings(), None, "", False
        self.mark(info.uuid)
        self._hear(driver)
        try:
            readings = driver.readings(info.uuid)
            processes = driver.processes(info.uuid) if listing else None
        except DeviceLost as lost:
            lost_reason = lost.reason
        except ListRefused:
            refused = True
        self.mark("")
        return Answer(
            uuid=info.uuid,
            boottime=now.boottime,
            wall=now.wall,
            readings=readings,
            lost_reason=lost_reason,
            listed=listing and not lost_reason,
            refused=refused,
            processes=processes,
        )

    def _hear(self, driver: Driver) -> None:
        """Once a tick, and before its devices are read: an error makes it read them in whole.

        A probe leaves it alone: the process beside it hears the same.
        """
        if self._only or driver in self._heard:
            return
        self._heard.add(driver)
        for uuid, xid in driver.alarms():
            self._send(Alarm(uuid=uuid, xids=(xid,)))


def build(orders: Orders, send: Send, clock: Clock) -> Helper:
    """A helper with the real drivers, those opened that open at once."""
    table = ProcessTable()
    table.attach(orders.attachments)
    skipped = set(orders.skipped)
    openers = standard_openers(orders, table, clock, send, skipped)
    fleet = Fleet(orders, openers, skipped, clock, send)
    helper = Helper(fleet, table, orders.only, send, clock)
    if not orders.only:
        helper.disks = DiskWatch(orders.settings.disks)
    return helper


class FrameWriter:
    """Writes frames to a file descriptor, from any thread.

    Those of an ordinary tick leave together, so that the daemon wakes once for all of them.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._encoder = FrameEncoder()
        self._pending: list[AnyFrame] = []
        self._lock = threading.Lock()

    def send(self, frame: AnyFrame) -> None:
        """Blocks while the daemon does not read; when it is gone, ends this process."""
        with self._lock:
            self._pending.append(frame)
            if frame.then == "" and not _ends_batch(frame):
                return
            unwritten = self._encoder.encode(self._pending)
            self._pending.clear()
            try:
                while unwritten:
                    unwritten = unwritten[os.write(self._descriptor, unwritten) :]
            except BrokenPipeError:
                os._exit(0)


def _ends_batch(frame: AnyFrame) -> bool:
    if isinstance(frame, Answer):
        return frame.processes is not None and len(frame.processes) > MANY_PROCESSES
    return isinstance(frame, TickEnded)


class Schedule:
    """Ticks at whole multiples of the interval since the start, so that delays do not add up."""

    def __init__(self, interval_seconds: float, start: float) -> None:
        self._interval_seconds = max(MIN_INTERVAL_SECONDS, interval_seconds)
        self._start = start

    def next(self, now: float) -> float:
        """The first due moment after now; those that were slept or worked through are left out."""
        passed = int((now - self._start) / self._interval_seconds)
        return self._start + (passed + 1) * self._interval_seconds


def serve(helper: Helper, orders: Orders, commands: queue.SimpleQueue[str], clock: Clock) -> None:
    """Tick for ever, or once if only one device is wanted."""
    schedule = Schedule(orders.settings.interval_seconds, clock.now().boottime)
    ticks = 0
    while True:
        if ticks % orders.settings.processes_every == 0:
            helper.list_soon()
        helper.tick()
        ticks += 1
        if orders.only:
            return
        due = schedule.next(clock.now().boottime)
        while (remaining := due - clock.now().boottime) > 0:
            try:
                if obey(helper, commands.get(timeout=remaining)):
                    break
            except queue.Empty:
                break


def obey(helper: Helper, line: str) -> bool:
    """One command line from the daemon; whether it asks for a tick at once."""
    command, _, argument = line.partition(" ")
    if command == COMMAND_LIST:
        helper.list_soon()
    elif command == COMMAND_TAKE:
        helper.take(argument)
    elif command == COMMAND_ATTACH:
        helper.attach(msgspec.json.decode(argument, type=AttachmentTable))
    elif command == COMMAND_MODE:
        number, uuid, mode = argument.split(" ")
        helper.set_compute_mode(int(number), uuid, mode)
    return command == COMMAND_TICK


def listen(stdin: BinaryIO, commands: queue.SimpleQueue[str]) -> NoReturn:
    """Pass commands on; when the daemon is gone, end at once, whatever the drivers are at."""
    for line in stdin:
        commands.put(line.decode().strip())
    os._exit(0)


def main() -> int:
    """Run until stdin ends."""
    stdin = sys.stdin.buffer
    orders = msgspec.json.decode(stdin.readline(), type=Orders)
    frames = os.dup(1)
    os.dup2(2, 1)  # what a driver's library may print is no frame
    commands: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=listen, args=(stdin, commands), name="listen", daemon=True).start()
    clock = SystemClock()
    send = FrameWriter(frames).send
    helper = build(orders, send, clock)
    if len(sys.argv) > 1:
        helper.mark = Mark(int(sys.argv[1])).write
    gc.collect()
    gc.freeze()
    try:
        serve(helper, orders, commands, clock)
    except DriverOutdated as outdated:
        # The next process opens it beside its other work; here all devices would have to wait.
        send(Remark(level="info", event="driver.outdated", detail=str(outdated)))
    return 0


if __name__ == "__main__":
    # Not sys.exit: a thread that hangs in a driver would be waited for.
    os._exit(main())
