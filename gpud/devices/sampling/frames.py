"""Pure: what the daemon and the sampling process tell each other.

Daemon to sampling process, on its stdin: one line of JSON (Orders), then command lines `list`
(read process lists at the next tick), `tick` (which is now), `take NAME` (what was skipped is
wanted again), `attach JSON` (an AttachmentTable, in place of the one before) and `mode NUMBER UUID
MODE` (set a compute mode; answered by ModeAnswer). Back, on its stdout: batches of frames, each a
4-byte little-endian length and a msgpack array. An ordinary tick is one batch, in which a device
that shows what it showed before is told without its readings (Again).

Silence and death need a culprit. Frames say in `then` what the sampling process does next that may
never end: ask a driver for its devices (the driver's name), or, in a probe, read a device (its
UUID). Else a device that does not answer soon is told as Unanswered, while the others are read on;
and the UUID of whom it asks stands in a file that outlives it (Mark).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from gpud.devices.attached import AttachmentTable
from gpud.devices.bands import Bands
from gpud.devices.driver import ModeOutcome
from gpud.devices.snapshot import DeviceInfo, HostReadings, ProcessUse, Readings, Trouble

LENGTH_BYTES = 4
# A list of 4096 processes is under 1 MiB; more is no batch of ours.
MAX_FRAME_BYTES = 16 * 1024 * 1024
COMMAND_LIST = "list"
COMMAND_TICK = "tick"
COMMAND_TAKE = "take"
COMMAND_ATTACH = "attach"
COMMAND_MODE = "mode"


class SamplerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What to sample and how often.

    `nvml`: `auto` uses it where it is, `on` also complains where it is not. `simulated` holds
    (card, count). `scenario` is the path of the file that scripts simulated cards; "" for none.
    `disks` are the folders whose file systems are watched: (what, path). `bands` are for the
    daemon's own side.
    """

    nvml: Literal["auto", "on", "off"] = "auto"
    host: bool = True
    simulated: tuple[tuple[str, int], ...] = ()
    scenario: str = ""
    interval_seconds: float = 1.0
    processes_every: int = 5
    disks: tuple[tuple[str, str], ...] = ()
    bands: Bands = Bands()


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What one sampling process is started with.

    `host_uuid`: what device `host` is called, if there is one.
    `known`: devices of earlier lives, whose facts stay. `numbers`: what they, and those forgotten
    since, are called (gpu{number}), by UUID. `skipped`: UUIDs that must not be touched, and "nvml"
    if that driver must not be. `only`: read this one device once, or just open that driver, then
    end.
    `attachments`: whose processes are whose, beside what their environments say. `xids`: errors
    that earlier lives have told, by UUID and number.
    """

    settings: SamplerSettings
    host_uuid: str
    known: tuple[DeviceInfo, ...] = ()
    numbers: dict[str, int] = {}
    skipped: tuple[str, ...] = ()
    only: str = ""
    attachments: AttachmentTable = AttachmentTable()
    xids: dict[str, dict[int, int]] = {}


class Frame(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Root of what comes back. `then` is "" for nothing that may not end, None for as before."""

    then: str | None = ""


class TickBegan(Frame, frozen=True, tag="tick"):
    """A tick began; `boottime` and `wall` in seconds as in clock.Moment."""

    boottime: float
    wall: float


class Inventory(Frame, frozen=True, tag="inventory"):
    """All devices of the drivers that are open.

    `opening`: drivers still being opened, or left alone for now. `unavailable`: drivers that are
    not here, each with the reason. `troubles`: what people have to know of these. `opening_asks`:
    the card that the opening of a driver waits for, "" for none.
    """

    devices: tuple[DeviceInfo, ...]
    opening: tuple[str, ...] = ()
    opening_asks: str = ""
    unavailable: dict[str, str] = {}
    troubles: tuple[Trouble, ...] = ()


class Answer(Frame, frozen=True, tag="answer"):
    """One device was read. `lost_reason`: what the driver said instead, "" when it answered.

    `listed` says that the process list was asked for in the same go; `processes` is None when it
    was not, when the driver never lists, or when it did not this time (`refused`).
    """

    uuid: str
    boottime: float
    wall: float
    readings: Readings
    lost_reason: str = ""
    listed: bool = False
    refused: bool = False  # it was asked for, and not told this time
    processes: tuple[ProcessUse, ...] | None = None


class Again(Frame, frozen=True, tag="again"):
    """One device was read and shows what its last Answer showed; its list was not asked for.

    On the wire alone: FrameEncoder makes it of an Answer, and FrameParser an Answer of it.
    """

    uuid: str
    boottime: float
    wall: float


class Unanswered(Frame, frozen=True, kw_only=True, tag="unanswered"):
    """The call to a device has not come back yet; its Answer may still come, at any time."""

    then: str | None = None
    uuid: str


class Alarm(Frame, frozen=True, kw_only=True, tag="alarm"):
    """Errors (Xids) that a driver reported of a device since it was last asked, one by one."""

    then: str | None = None
    uuid: str
    xids: tuple[int, ...]


class TickEnded(Frame, frozen=True, tag="end"):
    """Every device of this tick was read, but for those unanswered."""

    host: HostReadings


class Remark(Frame, frozen=True, kw_only=True, tag="remark"):
    """Something for the daemon's log."""

    then: str | None = None
    level: Literal["info", "warning"]
    event: str
    detail: str


class ModeAnswer(Frame, frozen=True, kw_only=True, tag="mode"):
    """What became of the `mode` command of that number."""

    then: str | None = None
    number: int
    outcome: ModeOutcome


AnyFrame = TickBegan | Inventory | Answer | Unanswered | Alarm | TickEnded | Remark | ModeAnswer

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[AnyFrame | Again])


class FrameEncoder:
    """Makes batches of frames, all for one FrameParser."""

    def __init__(self) -> None:
        self._told: dict[str, Readings] = {}  # by UUID, as the parser has them

    def encode(self, frames: Iterable[AnyFrame]) -> bytes:
        """Length and body."""
        told = [self._shortest(each) if isinstance(each, Answer) else each for each in frames]
        body = _encoder.encode(told)
        return len(body).to_bytes(LENGTH_BYTES, "little") + body

    def _shortest(self, answer: Answer) -> Answer | Again:
        uuid, readings = answer.uuid, answer.readings
        is_plain = not (answer.listed or answer.refused or answer.lost_reason)
        told = self._told.get(uuid) if is_plain and answer.processes is None else None
        if told is readings or told == readings:
            return Again(uuid=uuid, boottime=answer.boottime, wall=answer.wall, then=answer.then)
        self._told[uuid] = readings
        return answer


class FrameParser:
    """Cuts a stream of bytes into frames; what a device shows again is the very same Readings."""

    def __init__(self) -> None:
        self._pending = b""
        self._told: dict[str, Readings] = {}

    def feed(self, received: bytes) -> Iterator[AnyFrame]:
        """The frames completed by these bytes. Raises ValueError on what is not a frame."""
        pending = self._pending + received if self._pending else received
        self._pending = b""
        at, length = 0, len(pending)
        while length - at >= LENGTH_BYTES:
            begin = at + LENGTH_BYTES
            size = int.from_bytes(pending[at:begin], "little")
            if size > MAX_FRAME_BYTES:
                raise ValueError(f"a batch of {size} bytes")
            if length < begin + size:
                break
            at = begin + size
            for frame in _decoder.decode(pending[begin:at]):
                yield self._whole(frame)
        self._pending = pending[at:]

    def _whole(self, frame: AnyFrame | Again) -> AnyFrame:
        if isinstance(frame, Answer):
            self._told[frame.uuid] = frame.readings
        elif isinstance(frame, Again):
            readings = self._told.get(frame.uuid)
            if readings is None:
                raise ValueError(f"{frame.uuid} again, which was not told before")
            return Answer(
                uuid=frame.uuid,
                boottime=frame.boottime,
                wall=frame.wall,
                readings=readings,
                then=frame.then,
            )
        return frame
