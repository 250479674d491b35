"""Cells that only the ledger by itself can show: its clock, its devices and its life are data."""

from __future__ import annotations

from gpud.errors import GpudError
from gpud.rpc.errors import code_of
from tests.fakes.cards import GIB, process, sample
from tests.ledger.desk import Desk
from tests.proof.faults.expected import Expectation

RELEASE_DEADLINE_SECONDS = 10.0
HELD_GIB = 8


def free_lags_while_recovering() -> Expectation:
    """A neighbour's process is gone, the daemon dies before its device shows the bytes back."""
    desk = Desk(sample(0))
    desk.reserve("neighbour", HELD_GIB)
    used = HELD_GIB * GIB
    desk.show(sample(0, used=used, processes=(process(1, used, claim="neighbour"),)))
    desk.release("neighbour")
    desk.restart()
    desk.show(sample(0, used=used))
    desk.pass_seconds(RELEASE_DEADLINE_SECONDS + 1)
    leaked = desk.ledger.charges()["U-gpu0"].leaked_bytes
    held = desk.ledger.books.device("U-gpu0").granted_bytes
    try:
        desk.reserve("prober", 24)
        code = "OK"
    except GpudError as refusal:
        code = f"{code_of(refusal).name} {refusal.reason}"
    return Expectation(
        state=f"neighbour {desk.state('neighbour').name}",
        bytes=f"{held or 'nothing'}; {'neighbour' if leaked == used else leaked} leaked",
        event="device.leaked" if desk.told("device.leaked") == ["devices/U-gpu0"] else "",
        code=code,
    )


ON_DESK = {("free lags", "recovering"): free_lags_while_recovering}
