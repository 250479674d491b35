"""Pure: how a promise ends, and when its bytes count as back."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from gpud.clock import Moment
from gpud.devices.snapshot import DeviceKind, Health, Sample
from gpud.errors import GenerationMismatch
from gpud.events import Event
from gpud.ledger.charge import Charge
from gpud.ledger.reservation import (
    Attachment,
    Deadline,
    Grant,
    Notice,
    Reservation,
    ReservationKind,
    ReservationState,
)
from gpud.units import MIB, format_size

# Residue within this of what it was counts as given back: drivers round and cache.
RESIDUE_SLACK_BYTES = 64 * MIB


def fence(reservation: Reservation, generation: int | None) -> None:
    """Refuse a caller who speaks of another life of it. Raises GenerationMismatch."""
    if generation is not None and generation != reservation.generation:
        raise GenerationMismatch(
            name=reservation.name, given=generation, current=reservation.generation
        )


def begin_release(
    reservation: Reservation,
    ending: ReservationState,
    reason: str,
    residues: Mapping[str, int | None],
    deadline: Deadline,
) -> Reservation:
    """Ended, its bytes still booked; `residues` is what its devices show beyond all processes."""
    return replace(
        reservation,
        state=ReservationState.RELEASING,
        ending=ending,
        reason=reason,
        release_deadline=deadline,
        grants=tuple(
            replace(grant, residue_before_bytes=residues.get(grant.device))
            for grant in reservation.grants
        ),
    )


def finish(
    reservation: Reservation, ending: ReservationState, reason: str, now: Moment
) -> Reservation:
    """Its bytes are free."""
    return replace(
        reservation,
        state=ending,
        reason=reason,
        ended=Deadline.after(now, 0),
        release_deadline=None,
    )


def shortfall(reservation: Reservation, grant: Grant, sample: Sample, terms: Charge) -> int | None:
    """Bytes of an ended grant that its device still shows; None: it has not told since."""
    ended, listed = reservation.ended, sample.listed_boottime
    if ended is None or sample.health is not Health.HEALTHY:
        return None
    if sample.processes is None:
        # A card that never lists: what is still used beyond its grants is unattributed there, and
        # so kept from others without being called leaked. Else its list is only late.
        return 0 if sample.never_lists and sample.boottime > ended.boottime else None
    if listed is None or listed <= ended.boottime or is_alive(reservation, sample):
        return None
    if sample.info.kind is DeviceKind.HOST:
        return 0  # the kernel takes a process's memory back as it exits
    if terms.residue_bytes is None:
        return None
    # Ended before anything was sampled: up to its reserve the residue may be the card's own.
    before = grant.residue_before_bytes
    more = terms.residue_bytes - (terms.reserve_bytes if before is None else before)
    return more if more > RESIDUE_SLACK_BYTES else 0


def is_alive(reservation: Reservation, sample: Sample) -> bool:
    """Whether a process of it is on the device, as far as a device that answers tells.

    A lost or hung one tells nothing any more, nor does one that gave no list since the end: its
    last list must not hold a promise for ever.
    """
    ended, listed = reservation.ended, sample.listed_boottime
    if sample.health is not Health.HEALTHY or ended is None or listed is None:
        return False
    return listed > ended.boottime and any(
        process.claim == reservation.id for process in sample.processes or ()
    )


def rebased(reservation: Reservation, now: Moment) -> Reservation:
    """Its deadlines on the present boot's clock."""
    deadline, ended = reservation.deadline, reservation.ended
    release = reservation.release_deadline
    limit = reservation.request.max_wait_seconds if reservation.queued else reservation.ttl_seconds
    same_boot = reservation.created.boot_id == now.boot_id
    return replace(
        reservation,
        attachments=reservation.attachments if same_boot else _kept(reservation.attachments),
        created=_past(reservation.created, now),
        granted=reservation.granted and _past(reservation.granted, now),
        deadline=deadline and deadline.rebased(now, limit or 0.0),
        ended=ended and _past(ended, now),
        release_deadline=release and release.rebased(now, 0.0),
        notice=reservation.notice and _moved(reservation.notice, reservation, now),
        passes=tuple(_moved(each, reservation, now) for each in reservation.passes),
    )


def _kept(attachments: tuple[Attachment, ...]) -> tuple[Attachment, ...]:
    """After a reboot a process's numbers are somebody else's; a container's cgroup is its own."""
    return tuple(replace(each, boottime=0.0) for each in attachments if each.pid is None)


def _moved(notice: Notice, reservation: Reservation, now: Moment) -> Notice:
    """With what is left by the wall clock; set back, that leaves no more than there ever was."""
    since = reservation.granted or reservation.created
    longest = max(0.0, notice.deadline.wall - since.wall)
    return replace(notice, deadline=notice.deadline.rebased(now, longest))


def _past(ended: Deadline, now: Moment) -> Deadline:
    """What was before a reboot is before this boot's first moment."""
    if ended.boot_id == now.boot_id:
        return ended
    ago = max(0.0, now.wall - ended.wall)
    return Deadline(boot_id=now.boot_id, boottime=now.boottime - ago, wall=ended.wall)


def releasing_event(reservation: Reservation, now: Moment) -> Event:
    """It has ended; its bytes are awaited."""
    return Event(
        wall=now.wall,
        type="reservation.releasing",
        subject=reservation.name,
        actor=_actor(reservation, reservation.ending),
        reason=f"{reservation.reason}; its bytes stay booked until the device shows them back",
    )


def _actor(reservation: Reservation, ending: ReservationState | None) -> str:
    """An owner releases a lease; all else gpud does."""
    own = ending is ReservationState.RELEASED and reservation.kind is ReservationKind.LEASED
    return (reservation.ended_by or reservation.owner) if own else "gpud"


def end_event(reservation: Reservation, now: Moment) -> Event:
    """Its bytes are free."""
    return Event(
        wall=now.wall,
        type=f"reservation.{reservation.state.value}",
        subject=reservation.name,
        actor=_actor(reservation, reservation.state),
        reason=reservation.reason,
        details={"bytes": str(sum(grant.bytes for grant in reservation.grants))},
    )


def leak_event(reservation: Reservation, uuid: str, size: int, leaked: int, now: Moment) -> Event:
    """Its owner is gone and the device still shows its bytes."""
    return Event(
        wall=now.wall,
        type="device.leaked",
        subject=f"devices/{uuid}",
        reason=f"{format_size(size)} of {reservation.name} not shown back in time",
        details={"bytes": str(size), "leaked_bytes": str(leaked)},
    )
