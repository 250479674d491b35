"""QueryHistory's request checked, and what was found as protobuf."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from google.protobuf.timestamp_pb2 import Timestamp

from gpud.devices.snapshot import Snapshot
from gpud.errors import DeviceNotFound, OptionInvalid
from gpud.rpc.messages import checked_span, checked_text, span, stamp
from gpud.telemetry.history.asking import Answer, Asked, HistoryMissing, Series
from gpud.telemetry.history.fields import named
from gpud.telemetry.history.history import HOST
from gpud.v1 import history_pb2

DEFAULT_WINDOW_SECONDS = 3600.0
MAX_WINDOW_SECONDS = 366 * 86400.0
MAX_NAMES = 1000
_ENGINES = ("instances/", "models/")


def asked(
    request: history_pb2.QueryHistoryRequest,
    known: Mapping[str, str],
    snapshot: Snapshot | None,
    now: float,
) -> Asked:
    """What is asked, at a moment (wall seconds); `known` are subjects with their aliases.

    Raises OptionInvalid, DeviceNotFound, HistoryMissing.
    """
    for field in ("subjects", "fields"):
        if len(getattr(request, field)) > MAX_NAMES:
            count = len(getattr(request, field))
            raise OptionInvalid(field=field, problem=f"{count} of them, at most {MAX_NAMES}")
    window = checked_span("window", request, 1.0, MAX_WINDOW_SECONDS)
    window = DEFAULT_WINDOW_SECONDS if window is None else window
    step = checked_span("step", request, 1.0, MAX_WINDOW_SECONDS)
    if step is not None and step != math.floor(step):
        raise OptionInvalid(field="step", problem=f"{step:g} s is no whole number of seconds")
    end = _end(request, now)
    subjects = tuple(_subjects(request, known, snapshot))
    return Asked(
        subjects=subjects,
        fields=named(tuple(checked_text("fields", name) for name in request.fields), subjects),
        begin=end - window,
        end=end,
        step=None if step is None else int(step),
    )


def answer(
    found: Answer, known: Mapping[str, str], end: float
) -> history_pb2.QueryHistoryResponse:
    """What was found up to a moment (wall seconds); `known` has the aliases."""
    told = history_pb2.QueryHistoryResponse(step=span(found.step), end_time=stamp(end))
    if found.oldest is not None:
        told.oldest_time.seconds = found.oldest
    for each in found.series:
        told.series.append(_series(each, known.get(each.subject, "")))
    return told


def _series(value: Series, alias: str) -> history_pb2.Series:
    return history_pb2.Series(
        subject=value.subject,
        alias=alias,
        field=value.field.name,
        unit=value.field.unit,
        points=[
            history_pb2.Point(
                time=Timestamp(seconds=point.time),
                min=point.min,
                mean=point.mean,
                max=point.max,
                last=point.last,
                count=point.count,
            )
            for point in value.points
        ],
    )


def _end(request: history_pb2.QueryHistoryRequest, now: float) -> float:
    if not request.HasField("end_time"):
        return now
    value = request.end_time
    if not 0 <= value.nanos < 10**9 or value.seconds < 0:
        raise OptionInvalid(
            field="end_time",
            problem=f"{value.seconds} s and {value.nanos} ns are no moment after 1970",
        )
    return min(now, value.seconds + value.nanos / 1e9)


def _subjects(
    request: history_pb2.QueryHistoryRequest,
    known: Mapping[str, str],
    snapshot: Snapshot | None,
) -> list[str]:
    asked = [("subjects", name) for name in request.subjects]
    asked += [("device", request.device)] * bool(request.device)
    if not asked:
        present = snapshot.samples if snapshot is not None else ()
        return [*(f"devices/{sample.info.uuid}" for sample in present), HOST]
    found: list[str] = []
    for field, name in asked:
        for subject in _named(checked_text(field, name), known, snapshot):
            if subject in found:
                raise OptionInvalid(field=field, problem=f"{name} is named twice")
            if field == "device" and subject.startswith(_ENGINES):
                raise DeviceNotFound(name=name)
            found.append(subject)
    return found


def _named(name: str, known: Mapping[str, str], snapshot: Snapshot | None) -> Iterator[str]:
    """What a name means: `host` is the host and, where it is one, the device of that alias."""
    sample = snapshot.find(name) if snapshot is not None else None
    if sample is not None:
        yield f"devices/{sample.info.uuid}"
    if name == HOST:
        yield HOST
    if sample is not None or name == HOST:
        return
    bare = [f"{noun}/{name}" for noun in ("devices", "instances", "models")]
    aliased = [subject for subject, alias in known.items() if alias and alias == name]
    for subject in (name, *bare, *aliased):
        if subject in known:
            yield subject
            return
    raise (HistoryMissing if name.startswith(_ENGINES) else DeviceNotFound)(name=name)
