"""The room as one part: what is attached, what the driver enforces, who is watched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gpud.clock import Clock
from gpud.devices.sampling.sampler import Sampler
from gpud.devices.snapshot import Snapshot
from gpud.enforcement.attachment import AttachmentKeeper
from gpud.enforcement.compute_mode import ModeKeeper, ModeSeams
from gpud.enforcement.patrol import OVERUSE, TRESPASS, Patrol, PatrolSeams
from gpud.enforcement.quarantine import Quarantine, QuarantineSeams
from gpud.feed import Feed
from gpud.ledger.reservation import Enforcement, Reservation
from gpud.promises.promises import Promises
from gpud.settings import Policy
from gpud.store import Committed, SqliteStore

ATTACHED_EVENT = "reservation.attached"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardSeams:
    """What the room reads and acts through. `stop_instance`: its id, and the reason."""

    promises: Promises
    store: SqliteStore
    snapshots: Feed[Snapshot]
    sampler: Sampler
    clock: Clock
    stop_instance: Callable[[str, str], None]


class Guard:
    """Keeps promises beyond the books, as the policy says."""

    def __init__(self, seams: GuardSeams, policy: Policy) -> None:
        self.attachments = AttachmentKeeper(seams.promises, seams.sampler.attach, seams.clock)
        self._modes = ModeKeeper(
            ModeSeams(
                promises=seams.promises,
                store=seams.store,
                snapshots=seams.snapshots,
                clock=seams.clock,
                set_mode=seams.sampler.set_compute_mode,
            ),
            is_on=policy.exclusive_process_mode,
        )
        self._patrol = Patrol(
            PatrolSeams(
                promises=seams.promises,
                snapshots=seams.snapshots,
                clock=seams.clock,
                attachments=self.attachments,
                list_soon=seams.sampler.list_soon,
                stop_instance=seams.stop_instance,
            ),
            _ended(policy),
        )
        self._quarantine = Quarantine(
            QuarantineSeams(
                promises=seams.promises,
                is_writable=lambda: not seams.store.read_only_cause,
                boot_id=seams.clock.now().boot_id,
                settle=seams.sampler.dealings.settle,
                open_xids=seams.sampler.dealings.open_xids,
                restore_xids=seams.sampler.dealings.restore_xids,
            )
        )

    def configure(self, policy: Policy) -> None:
        """Go by another policy from now on."""
        self._modes.is_on = policy.exclusive_process_mode
        self._patrol.ends = _ended(policy)

    def restore(self) -> None:
        """Know again what was known in the last life; before the sampler runs."""
        self._quarantine.restore()

    def see(self, snapshot: Snapshot) -> None:
        """A snapshot that the ledger has not seen yet."""
        self._quarantine.observe(snapshot)

    async def run(self) -> None:
        """Keep at it until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._modes.run(), name="compute modes")
            tasks.create_task(self._patrol.run(), name="patrol")

    async def enforce(self, reservation: Reservation) -> Enforcement:
        """As ModeKeeper.enforce."""
        return await self._modes.enforce(reservation)

    def committed(self, commits: Sequence[Committed]) -> None:
        """Called by whoever hears of commits: what was attached is known to the next list."""
        entries = (entry for commit in commits for entry in commit.write.entries)
        if any(entry.type == ATTACHED_EVENT for entry in entries):
            self.attachments.refresh()


def _ended(policy: Policy) -> frozenset[str]:
    """The offences for which a process is ended rather than reported."""
    reactions = {TRESPASS: policy.on_trespass, OVERUSE: policy.on_overuse}
    return frozenset(kind for kind, reaction in reactions.items() if reaction == "terminate")
