"""Pure: the events that tell what the ledger decided; ending.py has those of an end."""

from __future__ import annotations

from gpud.clock import Moment
from gpud.errors import QuotaExceeded
from gpud.events import Event
from gpud.ledger.books import Cordon
from gpud.ledger.reservation import Attachment, Reservation

# A reservation's record is written whole with each change, so what it holds is bounded.
MAX_ATTACHMENTS = 64


def check_attachments(reservation: Reservation) -> None:
    """Raises QuotaExceeded when it has as many attachments as one may."""
    if len(reservation.attachments) >= MAX_ATTACHMENTS:
        raise QuotaExceeded(
            owner=reservation.owner,
            limit_name="the most of one reservation",
            limit=MAX_ATTACHMENTS,
            held=len(reservation.attachments),
            asked=1,
            unit="attachments",
            advice="attach the cgroup or the parent that holds them all",
        )


def drained(drain: Cordon, running: int, held: int) -> str:
    """Why nothing is granted, and what is left: instances that run, owners that hold promises."""
    why = f" ({drain.reason})" if drain.reason else ""
    runs = "1 instance runs" if running == 1 else f"{running} instances run"
    holds = "1 owner holds" if held == 1 else f"{held} owners hold"
    left = f"{runs}, {holds} reservations"
    return f"drained by {drain.actor}{why}: {left}; `gpuctl resume` ends that"


def granted(reservation: Reservation, now: Moment) -> Event:
    """It has its bytes."""
    waited = now.boottime - reservation.created.boottime
    passed = ", ".join(f"reservations/{each.by}" for each in reservation.passes)
    return Event(
        wall=now.wall,
        type="reservation.granted",
        subject=reservation.name,
        actor=reservation.request.asked_by or reservation.owner,
        reason=f"passed {passed}, for a bounded time" if passed else "",
        details={
            "bytes": str(sum(grant.bytes for grant in reservation.grants)),
            "devices": ",".join(grant.device for grant in reservation.grants),
            "kind": reservation.kind.value,
            "sharing": reservation.request.sharing.value,
            "waited_seconds": f"{waited:.3f}",
            **_for_whom(reservation),
        },
    )


def queued(reservation: Reservation, why: str, now: Moment) -> Event:
    """It waits."""
    request = reservation.request
    return Event(
        wall=now.wall,
        type="reservation.queued",
        subject=reservation.name,
        actor=request.asked_by or reservation.owner,
        reason=why,
        details={
            "bytes": str(request.bytes),
            "priority": request.priority.name.lower(),
            "max_wait_seconds": f"{request.max_wait_seconds or 0:g}",
            **_for_whom(reservation),
        },
    )


def _for_whom(reservation: Reservation) -> dict[str, str]:
    """Whose it is, where another asked for it."""
    return {"owner": reservation.owner} if reservation.request.asked_by else {}


def noticed(victim: Reservation, entry: Reservation, grace_seconds: float, now: Moment) -> Event:
    """It is to be ended for another."""
    return Event(
        wall=now.wall,
        type="reservation.preemption_notice",
        subject=victim.name,
        reason=f"to be ended in {grace_seconds:g} s for {entry.name} of {entry.owner}, which is "
        f"{entry.request.priority.name} and it {victim.request.priority.name}",
        details={"by": entry.name, "grace_seconds": f"{grace_seconds:g}"},
    )


def attached(reservation: Reservation, attachment: Attachment, by: str, now: Moment) -> Event:
    """A process or cgroup is the owner's from now on; `by` is who said so, if not the owner."""
    what = f"pid {attachment.pid}" if attachment.pid is not None else attachment.cgroup
    return Event(
        wall=now.wall,
        type="reservation.attached",
        subject=reservation.name,
        actor=by or reservation.owner,
        reason=what,
    )


def cordoned(uuid: str, cordon: Cordon | None, actor: str, now: Moment, *, lifted: bool) -> Event:
    """A device, or the whole node (no UUID), grants nothing new; or does again."""
    names = ("cordoned", "uncordoned") if uuid else ("draining", "resumed")
    return Event(
        wall=now.wall,
        type=f"{'device' if uuid else 'node'}.{names[lifted]}",
        subject=f"devices/{uuid}" if uuid else "node",
        actor=actor,
        reason=cordon.reason if cordon is not None else "",
    )
