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
from collections.abc import Callable, Mapping, Set
from typing import BinaryIO, NoReturn

import msgspec

from gpud.clock import Clock, SystemClock
from gpud.devices.attached import AttachmentTable
from gpud.devices.driver import (
    HOST,
    NVML,
    SIMULATED,
    Aliases,
    Asking,
    DeviceLost,
    Driver,
    DriverOutdated,
    DriverUnavailable,
    ListRefused,
    driver_name,
)
from gpud.devices.host import HostDriver, HostProbe
from gpud.devices.processes import ProcessTable
from gpud.devices.sampling.frames import (
    COMMAND_ATTACH,
    COMMAND_LIST,
    COMMAND_MODE,
    COMMAND_TAKE,
    COMMAND_TICK,
    Answer,
    AnyFrame,
    Inventory,
    Orders,
    Remark,
    SamplerSettings,
    TickBegan,
    TickEnded,
    encode_frame,
)
from gpud.devices.sampling.mode_setter import ModeSetter
from gpud.devices.sampling.reader import Mark, Reader
from gpud.devices.simulated import Scenario, SimulatedDriver, simulated_slots
from gpud.devices.snapshot import DeviceInfo, Readings

MIN_INTERVAL_SECONDS = 0.01
NVML_LIBRARY = "libnvidia-ml.so.1"
# A call to a healthy device takes far less, and one that hangs is waited for only once.
PATIENCE_SECONDS = 0.05
# The first tick waits this long for NVML, so that the first snapshot usually has its cards.
OPENING_GRACE_SECONDS = 1.0
# A driver that is missing or broken stays so until somebody installs something.
REOPEN_SECONDS = 60.0

Send = Callable[[AnyFrame], None]


class Opening:
    """A driver being opened on a thread of its own.

    Initialising cards that nothing else holds open takes seconds each, and can hang: meanwhile the
    other devices are sampled.
    """

    def __init__(self, open_driver: Callable[[], Driver]) -> None:
        self._open_driver = open_driver
        self._outcome: Driver | DriverUnavailable | None = None
        self._thread = threading.Thread(target=self._run, name="opening", daemon=True)
        self._thread.start()

    def outcome(self, wait_seconds: float) -> Driver | DriverUnavailable | None:
        """What came of it; None: still at it."""
        self._thread.join(wait_seconds)
        return self._outcome

    def _run(self) -> None:
        try:
            self._outcome = self._open_driver()
        except DriverUnavailable as unavailable:
            self._outcome = unavailable


Openers = Mapping[str, Callable[[], Driver]]


def standard_openers(
    orders: Orders, table: ProcessTable, clock: Clock, tell: Send, skipped: Set[str]
) -> Openers:
    """How each driver that is asked for is opened, by its name; `skipped` as in Fleet."""
    settings = orders.settings
    aliases = Aliases(orders.numbers)
    openers: dict[str, Callable[[], Driver]] = {}
    if settings.nvml != "off":
        openers[NVML] = lambda: _open_nvml(table, aliases, orders.known, skipped)
    if settings.host:
        openers[HOST] = lambda: HostDriver(orders.host_uuid, table, clock)
    if settings.simulated:
        openers[SIMULATED] = lambda: _open_simulated(settings, table, aliases, clock, tell)
    return openers


def _open_simulated(
    settings: SamplerSettings, table: ProcessTable, aliases: Aliases, clock: Clock, tell: Send
) -> Driver:
    def complain(problem: str) -> None:
        tell(Remark(level="warning", event="scenario.flawed", detail=problem))

    slots = simulated_slots(settings.simulated, aliases)
    scenario = Scenario(settings.scenario, complain, [info.alias for info, _ in slots])
    return SimulatedDriver(slots, table, scenario, clock)


def _open_nvml(
    table: ProcessTable, aliases: Aliases, known: tuple[DeviceInfo, ...], skipped: Set[str]
) -> Driver:
    # Most hosts without a card lack the library too; the binding would be 3 MiB of nothing.
    import ctypes

    try:
        ctypes.CDLL(NVML_LIBRARY)
    except OSError as problem:
        raise DriverUnavailable(driver=NVML, reason=str(problem), is_absent=True) from problem
    from gpud.devices.nvml import NvmlDriver

    driver = NvmlDriver(table, aliases, known, skipped)
    driver.devices()  # the first touch of each card is slow as well
    return driver


class Fleet:
    """The drivers that are open, NVML being opened again and again, and all their devices.

    `skipped`: devices, and maybe NVML as a whole, that must not be touched; the caller may take
    some out.
    """

    def __init__(
        self,
        orders: Orders,
        openers: Openers,
        skipped: set[str],
        clock: Clock,
        tell: Send,
    ) -> None:
        self.skipped = skipped
        self._orders = orders
        self._openers = openers
        self._clock = clock
        self._tell = tell
        self._drivers: dict[str, Driver] = {}
        self._opening: Opening | None = None
        self._unavailable: dict[str, str] = {}
        self._reopen_boottime = 0.0
        self._open_all()

    def settle(self, grace_seconds: float = 0.0) -> bool:
        """Move NVML's opening along, without blocking beyond the grace; True when it is there."""
        if NVML not in self._openers or NVML in self._drivers:
            return False
        if self._opening is None:
            due = self._clock.now().boottime >= self._reopen_boottime
            if not due or NVML in self.skipped:
                return False
            self._opening = Opening(self._openers[NVML])
        outcome = self._opening.outcome(grace_seconds)
        if outcome is None:
            return False
        self._opening = None
        if isinstance(outcome, DriverUnavailable):
            self._give_up(NVML, outcome)
            return False
        self._drivers[NVML] = outcome
        self._unavailable.pop(NVML, None)
        return True

    def inventory(self, asking: Asking) -> Inventory:
        """Every device there is now, with its drivers asked anew; `asking` as in Driver."""
        found: list[DeviceInfo] = []
        for name, driver in tuple(self._drivers.items()):
            try:
                found += driver.devices(asking)
            except DriverUnavailable as unavailable:
                del self._drivers[name]
                driver.close()
                self._give_up(name, unavailable)
        waited_for = self._opening is not None or NVML in self.skipped
        return Inventory(
            devices=tuple(found),
            opening=(NVML,) if waited_for else (),
            unavailable=dict(self._unavailable),
        )

    @property
    def may_hang(self) -> str:
        """The driver that may hang when it is asked for its devices; "" if it is not open."""
        return NVML if NVML in self._drivers else ""

    def driver(self, info: DeviceInfo) -> Driver:
        """The driver that this device is read through."""
        return self._drivers[driver_name(info.kind)]

    def _open_all(self) -> None:
        # A probe has nothing to do but wait; else the other devices must not.
        self.settle(REOPEN_SECONDS if self._orders.only else OPENING_GRACE_SECONDS)
        others = {name: open_() for name, open_ in self._openers.items() if name != NVML}
        # They are read first: so they are fresh whatever a card does.
        self._drivers = others | self._drivers

    def _give_up(self, name: str, unavailable: DriverUnavailable) -> None:
        self._reopen_boottime = self._clock.now().boottime + REOPEN_SECONDS
        if self._unavailable.get(name) == unavailable.reason:
            return
        self._unavailable[name] = unavailable.reason
        is_wanted = self._orders.settings.nvml == "on"
        is_expected = unavailable.is_absent and not is_wanted
        hint = '; devices.nvml = "on" wants it: install it, or write "auto"' if is_wanted else ""
        self._tell(
            Remark(
                level="info" if is_expected else "warning",
                event="driver.unavailable",
                detail=f"{unavailable}{hint}",
            )
        )


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
        self._send = send
        self._clock = clock
        self._reader = Reader(self._ask, send, PATIENCE_SECONDS)
        self._modes = ModeSetter(send)
        self._probe = HostProbe()
        self._devices: tuple[DeviceInfo, ...] = ()
        self._wants_list = True

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
        if self._only:
            self._send(msgspec.structs.replace(opening, then=self._only if plan else ""))
            for info in plan:
                self._send(self._ask(info, listing=listing))
        else:
            self._send(opening)
            self._reader.read(plan, listing=listing)
        self._send(TickEnded(host=self._probe.read()))

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


def build(orders: Orders, send: Send, clock: Clock) -> Helper:
    """A helper with the real drivers, those opened that open at once."""
    table = ProcessTable()
    table.attach(orders.attachments)
    skipped = set(orders.skipped)
    openers = standard_openers(orders, table, clock, send, skipped)
    return Helper(Fleet(orders, openers, skipped, clock, send), table, orders.only, send, clock)


class FrameWriter:
    """Writes frames to a file descriptor, from any thread.

    Those of an ordinary tick leave together, so that the daemon wakes once for all of them.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pending = bytearray()
        self._lock = threading.Lock()

    def send(self, frame: AnyFrame) -> None:
        """Blocks while the daemon does not read; when it is gone, ends this process."""
        with self._lock:
            self._pending += encode_frame(frame)
            if frame.then == "" and not isinstance(frame, TickEnded):
                return
            try:
                while self._pending:
                    del self._pending[: os.write(self._descriptor, self._pending)]
            except BrokenPipeError:
                os._exit(0)


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
