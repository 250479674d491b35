"""The daemon's side of sampling: keeps one sampling process at work, publishes what it sees.

While a device does not answer, the others are published on. Once it has missed its deadline, its
process is abandoned: killed, and never waited for. The next one skips that device (or NVML, if it
was discovery that hung). What is left out is tried by probes, short-lived processes of their own,
until it answers; they touch nothing else that is left out. No probe starts while an abandoned
process still lives: at most one is stuck in the driver and one at work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec
import structlog

from gpud.clock import Clock
from gpud.devices.attached import AttachmentTable
from gpud.devices.bands import Bands
from gpud.devices.driver import HOST, NVML, SIMULATED, ModeOutcome, driver_name
from gpud.devices.host import host_uuid
from gpud.devices.host_pressure import HostPressure
from gpud.devices.sampling.board import Board, Instant
from gpud.devices.sampling.child import Child, Receive
from gpud.devices.sampling.dealings import Dealings
from gpud.devices.sampling.frames import (
    COMMAND_ATTACH,
    COMMAND_LIST,
    COMMAND_TAKE,
    COMMAND_TICK,
    Alarm,
    Answer,
    AnyFrame,
    Inventory,
    ModeAnswer,
    Orders,
    Remark,
    SamplerSettings,
    TickBegan,
    TickEnded,
    Unanswered,
)
from gpud.devices.sampling.limits import Limits
from gpud.devices.sampling.mode_orders import ModeOrders
from gpud.devices.snapshot import HostReadings, Snapshot, Squeeze

log = structlog.get_logger()

# How long the end of the daemon waits for processes that were killed.
REAP_LIMIT_SECONDS = 1.0
# Most are gone in a moment; for one that is stuck a look every second is enough.
REAP_RECHECK_SECONDS = 0.01
# Later than this the loop wakes only where the whole daemon was stopped, or starved.
LATE_SECONDS = 0.5
REAP_RECHECK_LONGEST_SECONDS = 1.0


@dataclass(slots=True)
class _Stuck:
    """A device, or NVML, that is left out: when (loop time) a probe tries it."""

    backoff_seconds: float
    due: float


class Sampler:
    """Publishes one Snapshot per tick, and one when a device misses its deadline.

    `publish` runs on the event loop and must not raise. `newest` is what it was last given;
    `last_tick_boottime` is when the sampling process was last through with a tick, in seconds.
    `dealings` is for decisions about devices.
    """

    def __init__(
        self,
        settings: SamplerSettings,
        clock: Clock,
        publish: Callable[[Snapshot], None],
        limits: Limits | None = None,
        spawn: Callable[[Orders, Receive], Child] = Child,
    ) -> None:
        self.newest: Snapshot | None = None
        self.last_tick_boottime: float | None = None
        self._limits = limits or Limits()
        self._spawn = spawn
        self._settings = settings
        self._host_uuid = host_uuid()
        self._clock = clock
        self._publish_snapshot = publish
        self._board = Board(settings.bands)
        self.dealings = Dealings(self._board, clock)
        self._tick: Instant = clock.now()
        self._host = HostReadings()
        self._pressure = HostPressure()
        self._live: Child | None = None
        self._live_since = 0.0
        self._patience: asyncio.Timeout | None = None  # with the live process
        self._abandoned: list[Child] = []
        self._stuck: dict[str, _Stuck] = {}
        self._got_stuck = asyncio.Event()
        # Whom the live process waits for beside its other work, and until when (loop time).
        self._unanswered: dict[str, float] = {}
        self._opening_asks = ""  # of them, the card that keeps a driver from being open
        self._attachments = AttachmentTable()
        self._mode_orders = ModeOrders()
        self._crashes_opening = 0
        self._restart_seconds = self._limits.restart_first

    def judge_by(self, bands: Bands) -> None:
        """Judge pressure and heat by other edges, from the next sample on."""
        self._board.bands = bands

    def sample_now(self) -> None:
        """Have everything read at once, process lists too, whatever the interval."""
        self.list_soon()
        if self._live is not None:
            self._live.command(COMMAND_TICK)

    def list_soon(self) -> None:
        """Have process lists read at the next tick."""
        if self._live is not None:
            self._live.command(COMMAND_LIST)

    def attach(self, table: AttachmentTable) -> None:
        """Whose processes are whose from now on; lists that are read after this know it."""
        self._attachments = table
        if self._live is not None:
            self._live.command(f"{COMMAND_ATTACH} {msgspec.json.encode(table).decode()}")
            self.list_soon()

    async def set_compute_mode(self, uuid: str, mode: str) -> ModeOutcome:
        """Set it and read it back; within the limit of a device, whatever that does."""
        return await self._mode_orders.send(self._live, uuid, mode, self._limits.device)

    async def run(self) -> None:
        """Sample until cancelled; then end every process that was started here."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_sampling())
                tasks.create_task(self._keep_probing())
        finally:
            await self._end_children()

    async def _keep_sampling(self) -> None:
        while True:
            orders = Orders(
                settings=self._settings,
                host_uuid=self._host_uuid,
                known=self._board.known,
                numbers=self._board.numbers,
                skipped=tuple(self._stuck),
                attachments=self._attachments,
                xids=self._board.xids,
            )
            self._unanswered.clear()
            self._opening_asks = ""
            try:
                child = self._live = self._spawn(orders, self._receive)
            except OSError as problem:
                log.warning("sampler.not_started", problem=str(problem))
                await self._pause()
                continue
            self._live_since = asyncio.get_running_loop().time()
            missed = await self._watch(child, self._limits.start)
            self._live = self._patience = None
            self._mode_orders.fail()
            self._retire(child)
            if missed:
                self._explain_silence(child)
            else:
                await self._pause()
                self._explain_end(child)

    async def _watch(self, child: Child, start_limit_seconds: float) -> bool:
        """Wait until it ends (False) or is silent for too long at what it is doing (True)."""
        loop = asyncio.get_running_loop()
        while True:
            remaining = self._deadline(child, start_limit_seconds) - loop.time()
            if remaining <= 0:
                return True
            # It may turn to something with a shorter limit meanwhile, but none is shorter.
            patience = asyncio.timeout_at(loop.time() + min(remaining, self._limits.device))
            if child is self._live:
                self._patience = patience
            try:
                async with patience:
                    await child.ended.wait()
            except TimeoutError:
                self._excuse(child, loop.time() - (patience.when() or 0.0))
                continue
            return False

    def _put_off(self) -> None:
        """It got on: nobody need wake to see that it did."""
        if self._patience and not (self._patience.expired() or self._unanswered):
            self._patience.reschedule(self._in(self._limits.device))

    def _excuse(self, child: Child, late_seconds: float) -> None:
        """While the daemon stood still it heard nothing: what was said meanwhile is read first."""
        if late_seconds > LATE_SECONDS:
            given_seconds = late_seconds + LATE_SECONDS  # to read it
            child.busy_since += given_seconds
            for name in self._unanswered:
                self._unanswered[name] += given_seconds

    def _deadline(self, child: Child, start_limit_seconds: float) -> float:
        """Until when (loop time) its present silence, and that of its devices, may last."""
        if child.busy_with is None:
            limit = start_limit_seconds
        elif child.busy_with == "":
            limit = self._settings.interval_seconds + self._limits.device
        else:
            limit = self._limits.device
        deadline = child.busy_since + limit
        if child is self._live and self._unanswered:
            return min(deadline, *self._unanswered.values())
        return deadline

    @staticmethod
    def _in(seconds: float) -> float:
        """Loop time then."""
        return asyncio.get_running_loop().time() + seconds

    async def _pause(self) -> None:
        await self._clock.sleep(self._restart_seconds)
        self._restart_seconds = min(2 * self._restart_seconds, self._limits.restart_longest)

    def _retire(self, child: Child) -> None:
        child.abandon()
        self._abandoned.append(child)
        self._reap()

    def _reap(self) -> None:
        self._abandoned = [child for child in self._abandoned if not child.is_gone()]

    # What the sampling process says.

    def _receive(self, child: Child, frame: AnyFrame) -> None:
        if child is not self._live:
            return
        match frame:  # the most frequent first
            case Answer():
                self._unanswered.pop(frame.uuid, None)
                self._board.take_answer(frame)
            case TickBegan():
                self._tick = frame
            case TickEnded():
                self.last_tick_boottime = self._clock.now().boottime
                self._restart_seconds = self._limits.restart_first
                self._crashes_opening = 0
                self._put_off()
                self._take_host(frame.host)
            case Inventory():
                self._take_inventory(frame)
            case Unanswered():
                self._unanswered[frame.uuid] = self._in(self._limits.device)
            case Alarm() | Remark() | ModeAnswer():
                self._take_other(frame)

    def _take_other(self, frame: Alarm | Remark | ModeAnswer) -> None:
        match frame:
            case Alarm():
                self._board.take_xids(frame.uuid, frame.xids, self._clock.now())
            case Remark():
                tell = log.warning if frame.level == "warning" else log.info
                tell(frame.event, detail=frame.detail)
            case ModeAnswer():
                self._mode_orders.settle(frame)

    def _take_inventory(self, inventory: Inventory) -> None:
        earlier = {info.uuid for info in self._board.known}
        self._board.take_inventory(inventory, self._tick)
        if inventory.opening and self._in(-self._limits.opening) > self._live_since:
            self._board.stop_awaiting(self._tick, is_wanted=self._settings.nvml == "on")
        if inventory.opening_asks != self._opening_asks:
            self._unanswered.pop(self._opening_asks, None)
            self._opening_asks = inventory.opening_asks
            if self._opening_asks:
                self._unanswered[self._opening_asks] = self._in(self._limits.opening)
        for info in self._board.known:
            if info.uuid not in earlier:
                log.info(
                    "device.found",
                    device=info.uuid,
                    alias=info.alias,
                    model=info.model_name,
                    memory_total_bytes=info.memory_total_bytes,
                )
        for uuid in [each for each in self._stuck if self._board.has_vanished(each)]:
            # Nobody is asked for what is not there; once it is back it is read like any other.
            self._take_back(uuid)

    def _take_host(self, readings: HostReadings) -> None:
        squeezes = self._pressure.observe(readings, self._tick.boottime)
        count = self._pressure.count
        self._host = replace(readings, memory_pressure_events=count) if count else readings
        self._publish(self._tick, squeezes)

    def _publish(self, at: Instant, squeezes: tuple[Squeeze, ...] = ()) -> None:
        if self._abandoned:
            self._reap()
        self.newest = self._board.snapshot(at, self._host)
        if squeezes:
            self.newest = replace(self.newest, squeezes=squeezes)
        self._publish_snapshot(self.newest)

    # What its silence and its end say.

    def _explain_silence(self, child: Child) -> None:
        """It told whom it waits for; cards that hang together shall not cost a process each."""
        limits, due = self._limits, dict(self._unanswered)
        at = child.busy_with
        if at == NVML:
            # Looking for its devices it asks each card: one that hangs leaves out itself alone.
            at = child.asked_last or NVML
        if at:
            due[at] = child.busy_since + limits.device
        half_way = self._in(limits.device / 2)
        culprits = [name for name, end in due.items() if end <= half_way]
        for culprit in culprits:
            waited = limits.opening if culprit == self._opening_asks else limits.device
            self._leave_out(culprit, f"no answer within {waited:g} s")
        if not culprits:
            log.warning("sampler.silent", starting=child.busy_with is None)
        self._publish(self._clock.now())

    def _explain_end(self, child: Child) -> None:
        # Before its first frame it does nothing that could go wrong but open NVML.
        culprit = NVML if child.busy_with is None else child.asked_last or child.busy_with
        log.warning("sampler.ended", exit=child.exit_text(), busy_with=culprit or "nothing")
        if culprit == NVML:
            # Starting is when anything else can end it too: one time proves nothing.
            self._crashes_opening += 1
            if self._crashes_opening < self._limits.crashes_tolerated:
                return
        if culprit:
            self._leave_out(culprit, "the sampling process died of reading it")
            self._publish(self._clock.now())

    def _leave_out(self, culprit: str, reason: str) -> None:
        """Skip this device, or NVML as a whole, until a probe gets an answer from it."""
        skipped, info = {culprit}, self._board.find(culprit)
        if info and driver_name(info.kind) == NVML and len(self._abandoned) > 1:
            # An earlier process is stuck as well, so it is the driver that hangs, not a card: a
            # third process must not go there.
            skipped.add(NVML)
        for known in self._board.known:
            if skipped & {known.uuid, driver_name(known.kind)}:
                self._board.mark_unresponsive(known.uuid, reason, self._clock.now())
        first = self._limits.probe_first
        for name in skipped:
            due = asyncio.get_running_loop().time() + first
            self._stuck.setdefault(name, _Stuck(backoff_seconds=first, due=due))
        self._got_stuck.set()

    # What is left out.

    async def _keep_probing(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            name = await self._due_for_probe()
            await self._await_abandoned()
            if name in self._stuck and await self._probe(name):
                self._take_back(name)
            stuck = self._stuck.get(name)
            if stuck is None:
                continue  # taken back, by us or because it vanished meanwhile
            stuck.backoff_seconds = min(2 * stuck.backoff_seconds, self._limits.probe_longest)
            stuck.due = loop.time() + stuck.backoff_seconds

    async def _await_abandoned(self) -> None:
        """Wait until they are gone. What is due keeps its turn, or who hangs took it each time."""
        recheck_seconds = REAP_RECHECK_SECONDS
        self._reap()
        while self._abandoned:
            await self._clock.sleep(recheck_seconds)
            recheck_seconds = min(2 * recheck_seconds, REAP_RECHECK_LONGEST_SECONDS)
            self._reap()

    def _take_back(self, name: str) -> None:
        if self._stuck.pop(name, None) is None:
            return
        log.info("sampler.taken_back", name=name)
        self._got_stuck.set()
        if self._live is not None:
            self._live.command(f"{COMMAND_TAKE} {name}")

    async def _due_for_probe(self) -> str:
        """Wait until something left out is to be tried again, and say what."""
        while True:
            self._got_stuck.clear()
            name, stuck = min(self._stuck.items(), key=lambda it: it[1].due, default=("", None))
            try:
                async with asyncio.timeout_at(stuck.due if stuck else None):
                    await self._got_stuck.wait()
            except TimeoutError:
                return name

    async def _probe(self, name: str) -> bool:
        """Read this one device, or open NVML, in a process of its own; whether that answered."""
        answers: list[AnyFrame] = []

        def receive(_: Child, frame: AnyFrame) -> None:
            match frame:
                case Answer() if frame.uuid == name:
                    answers.append(frame)
                    self._board.take_answer(frame)
                case Inventory() if name == NVML and NVML not in frame.opening:
                    answers.append(frame)

        try:
            child = self._spawn(self._probe_orders(name), receive)
        except OSError:
            return False
        try:
            await self._watch(child, self._limits.probe_start)
        finally:
            self._retire(child)
        return bool(answers)

    def _probe_orders(self, name: str) -> Orders:
        info = self._board.find(name)
        driver = driver_name(info.kind) if info else NVML
        # Opening its driver touches every card that is not skipped. One that nobody has described
        # yet is not read without that.
        open_to = {NVML} if info else {NVML, name}
        return Orders(
            settings=msgspec.structs.replace(
                self._settings,
                host=driver == HOST,
                nvml=self._settings.nvml if driver == NVML else "off",
                simulated=self._settings.simulated if driver == SIMULATED else (),
            ),
            host_uuid=self._host_uuid,
            known=self._board.known,
            numbers=self._board.numbers,
            skipped=tuple(each for each in self._stuck if each not in open_to),
            only=name,
        )

    async def _end_children(self) -> None:
        if self._live is not None:
            self._retire(self._live)
            self._live = None
        deadline = asyncio.get_running_loop().time() + REAP_LIMIT_SECONDS
        while self._abandoned and asyncio.get_running_loop().time() < deadline:
            await self._clock.sleep(REAP_RECHECK_SECONDS)
            self._reap()
