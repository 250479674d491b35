"""Pure: the list of instances."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gpuctl.glance.words import (
    instance_memory,
    instance_state,
    tokens_now,
    tokens_text,
)
from gpuctl.messages import known, seconds_of, word
from gpuctl.tables import clean
from gpuctl.top.shown.field import (
    Cell,
    Field,
    cell,
    number_field,
    percent_text,
    state_cell,
    text_field,
)
from gpuctl.units import UNKNOWN, span_text
from gpud.v1.instances_pb2 import Instance, Latency


def _requests(instance: Instance, _: int) -> Cell:
    """Served at once of so many, and those that wait: `2/4 +3`."""
    metrics = instance.metrics
    running, slots = known(metrics, "requests_running"), known(metrics, "slots")
    if running is None:
        return cell(UNKNOWN)
    waiting = known(metrics, "requests_waiting")
    text = (str(running) if slots is None else f"{running}/{slots}") + (
        f" +{waiting}" if waiting else ""
    )
    return cell(text, "warn" if waiting or known(metrics, "slots_full") else "")


def p99_seconds(latency: Latency) -> float | None:
    """None: the engine does not tell."""
    return seconds_of(latency.p99) if latency.HasField("p99") else None


def _latency(header: str, field: str, rank: int) -> Field[Instance]:
    def p99(instance: Instance) -> float | None:
        return p99_seconds(getattr(instance.metrics, field))

    width = max(7, len(header))
    return number_field(header, lambda i: span_text(p99(i)), p99, width, rank=rank)


def _kv(instance: Instance) -> float | None:
    percent: float | None = known(instance.metrics, "kv_used_percent")
    return percent


def instance_fields(aliases: Callable[[Iterable[str]], str]) -> tuple[Field[Instance], ...]:
    """`aliases`: the short names of devices."""
    return (
        Field(
            header="INSTANCE",
            cell=lambda i, _: cell(clean(i.name.removeprefix("instances/")), "strong"),
            key=lambda i: i.name,
            width=15,
            grows=16,
            least=10,
        ),
        text_field(
            "MODEL", lambda i: clean(i.model.removeprefix("models/")), 10, grows=30, rank=4
        ),
        Field(
            header="STATE",
            cell=lambda i, _: state_cell(instance_state(i)),
            key=instance_state,
            width=9,
            grows=10,
        ),
        text_field("ON", lambda i: clean(aliases(i.devices)), 5, grows=15, rank=2),
        number_field("MEMORY", instance_memory, lambda i: known(i, "measured_bytes"), 10, rank=3),
        number_field("TOK/S", tokens_text, tokens_now, 6),
        Field(
            header="REQUESTS",
            cell=_requests,
            key=lambda i: known(i.metrics, "requests_running"),
            width=8,
            right=True,
            rank=1,
        ),
        _latency("TTFT p99", "time_to_first_token", 5),
        _latency("p99", "request", 6),
        number_field("KV", lambda i: percent_text(_kv(i)), _kv, 4, rank=7),
        Field(
            header="STARTS",
            cell=lambda i, _: cell(str(i.restarts), "warn" if i.restarts else ""),
            key=lambda i: i.restarts,
            width=6,
            right=True,
            rank=8,
        ),
        text_field("OWNER", lambda i: clean(i.owner), 12, grows=20, rank=9),
    )


def instance_text(instance: Instance) -> str:
    """What a filter looks into."""
    words = (instance.name, instance.model, instance.owner, instance_state(instance))
    return clean(" ".join((*words, word(instance, "engine"), instance.metrics.service)))
