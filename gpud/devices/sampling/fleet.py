"""The drivers of one sampling process: opened, those that hang meanwhile waited for by no one."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Set
from typing import Literal

from gpud.clock import Clock
from gpud.devices.driver import (
    HOST,
    NVML,
    SIMULATED,
    Aliases,
    Asking,
    Driver,
    DriverUnavailable,
    driver_name,
    unheard,
)
from gpud.devices.host import HostDriver
from gpud.devices.processes import ProcessTable
from gpud.devices.sampling.frames import AnyFrame, Inventory, Orders, Remark, SamplerSettings
from gpud.devices.simulated import Scenario, SimulatedDriver, simulated_slots
from gpud.devices.snapshot import DeviceInfo, Trouble

NVML_LIBRARY = "libnvidia-ml.so.1"
# The first tick waits this long for NVML, so that the first snapshot usually has its cards.
OPENING_GRACE_SECONDS = 1.0
# A driver that is missing or broken stays so until somebody installs something.
REOPEN_SECONDS = 60.0
# What is dear to read is read with every process list, and no more often than this.
RARE_SECONDS = 1.0

Send = Callable[[AnyFrame], None]


class Opening:
    """A driver being opened on a thread of its own.

    Initialising cards that nothing else holds open takes seconds each, and can hang: meanwhile the
    other devices are sampled.
    """

    def __init__(self, open_driver: Callable[[Asking], Driver]) -> None:
        self.asks = ""  # the card that it waits for
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
            self._outcome = self._open_driver(self._ask)
        except DriverUnavailable as unavailable:
            self._outcome = unavailable

    def _ask(self, uuid: str) -> None:
        self.asks = uuid


# Each tells whom it asks, as in Driver.
Openers = Mapping[str, Callable[[Asking], Driver]]


def standard_openers(
    orders: Orders, table: ProcessTable, clock: Clock, tell: Send, skipped: Set[str]
) -> Openers:
    """How each driver that is asked for is opened, by its name; `skipped` as in Fleet."""
    settings = orders.settings
    aliases = Aliases(orders.numbers)
    openers: dict[str, Callable[[Asking], Driver]] = {}
    if settings.nvml != "off":

        def open_nvml(asking: Asking) -> Driver:
            driver = _open_nvml(table, aliases, orders, skipped)
            driver.devices(asking)  # the first touch of each card is slow as well
            return driver

        openers[NVML] = open_nvml
    if settings.host:
        openers[HOST] = lambda _: HostDriver(orders.host_uuid, table, clock)
    if settings.simulated:
        openers[SIMULATED] = lambda _: _open_simulated(orders, table, aliases, clock, tell)
    return openers


def _open_simulated(
    orders: Orders, table: ProcessTable, aliases: Aliases, clock: Clock, tell: Send
) -> Driver:
    settings = orders.settings

    def complain(problem: str) -> None:
        tell(Remark(level="warning", event="scenario.flawed", detail=problem))

    slots = simulated_slots(settings.simulated, aliases)
    scenario = Scenario(settings.scenario, complain, [info.alias for info, _ in slots])
    driver = SimulatedDriver(slots, table, scenario, clock)
    driver.told_xids(orders.xids)
    return driver


def _open_nvml(table: ProcessTable, aliases: Aliases, orders: Orders, skipped: Set[str]) -> Driver:
    # Most hosts without a card lack the library too; the binding would be 3 MiB of nothing.
    import ctypes

    try:
        ctypes.CDLL(NVML_LIBRARY)
    except OSError as problem:
        raise DriverUnavailable(driver=NVML, reason=str(problem), is_absent=True) from problem
    from gpud.devices.nvml import NvmlDriver

    driver = NvmlDriver(table, aliases, orders.known, skipped)
    driver.rare_every = _rare_every(orders.settings)
    return driver


def _rare_every(settings: SamplerSettings) -> int:
    """In how many ticks rare readings are read once."""
    least = math.ceil(RARE_SECONDS / settings.interval_seconds) if settings.interval_seconds else 1
    return max(settings.processes_every, least)


def _unseen(uuid: str) -> Trouble:
    reason = (
        "it did not answer when it was first asked; the other devices are used, and it is tried "
        "again until it answers"
    )
    return Trouble(driver=NVML, device=uuid, reason=reason)


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
        self._troubles: dict[str, Trouble] = {}
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
        self._troubles.pop(NVML, None)
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
        unseen = self.skipped - {NVML} - {info.uuid for info in (*found, *self._orders.known)}
        return Inventory(
            devices=tuple(found),
            opening=(NVML,) if waited_for else (),
            opening_asks=self._opening.asks if self._opening is not None else "",
            unavailable=dict(self._unavailable),
            troubles=(*self._troubles.values(), *map(_unseen, sorted(unseen))),
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
        others = {name: open_(unheard) for name, open_ in self._openers.items() if name != NVML}
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
        reason = f"{unavailable.reason}{hint}"
        trouble = Trouble(driver=name, reason=reason, is_wanted=is_wanted)
        if is_expected:
            self._troubles.pop(name, None)
        else:
            self._troubles[name] = trouble
        level: Literal["info", "warning"] = "info" if is_expected else "warning"
        self._tell(Remark(level=level, event="driver.unavailable", detail=trouble.words))
