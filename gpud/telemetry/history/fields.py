"""Pure: what is kept of devices, the host and engines: each field's number, name and unit.

A number stands in files on disk and is never given to another field. Names are those of the API
(Sample, Device, HostReadings, InstanceMetrics); flags count as 0 and 1, bands as their numbers.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Final

from gpud.errors import OptionInvalid


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field that is kept."""

    number: int
    name: str
    unit: str


def _fields(*told: tuple[int, str, str]) -> tuple[Field, ...]:
    return tuple(Field(number=number, name=name, unit=unit) for number, name, unit in told)


# In the order of a row. These are Readings' own attributes, …
READ: Final = _fields(
    (1, "memory_used_bytes", "bytes"),
    (2, "utilization_percent", "percent"),
    (3, "memory_utilization_percent", "percent"),
    (4, "temperature_celsius", "celsius"),
    (5, "power_watts", "watts"),
    (6, "power_limit_watts", "watts"),
    (7, "fan_percent", "percent"),
    (8, "sm_clock_mhz", "MHz"),
    (9, "memory_clock_mhz", "MHz"),
    (10, "memory_temperature_celsius", "celsius"),
    (11, "video_clock_mhz", "MHz"),
    (12, "performance_state", ""),
    (13, "encoder_percent", "percent"),
    (14, "decoder_percent", "percent"),
    (15, "energy_joules", "joules"),
    (16, "ecc_enabled", ""),
    (17, "ecc_corrected_count", "count"),
    (18, "ecc_uncorrected_count", "count"),
    (19, "remapped_corrected_count", "count"),
    (20, "remapped_uncorrected_count", "count"),
    (21, "remap_pending", ""),
    (22, "remap_failed", ""),
    (23, "retired_page_count", "count"),
    (24, "pcie_generation", ""),
    (25, "pcie_width", ""),
    (26, "pcie_replay_count", "count"),
    (27, "pcie_sent_bytes_per_second", "bytes/s"),
    (28, "pcie_received_bytes_per_second", "bytes/s"),
    (29, "nvlink_active_count", "count"),
    (30, "nvlink_error_count", "count"),
    (31, "nvlink_sent_bytes_per_second", "bytes/s"),
    (32, "nvlink_received_bytes_per_second", "bytes/s"),
)
# … and these what gpud makes of a device.
JUDGED: Final = _fields(
    (40, "pressure", ""),
    (41, "thermal", ""),
    (42, "throttled", ""),
    (43, "xid_count", "count"),
    (44, "granted_bytes", "bytes"),
    (45, "charged_bytes", "bytes"),
    (46, "observed_bytes", "bytes"),
    (47, "foreign_bytes", "bytes"),
    (48, "unattributed_bytes", "bytes"),
    (49, "leaked_bytes", "bytes"),
    (50, "grantable_bytes", "bytes"),
)
DEVICE: Final = READ + JUDGED
HOST: Final = _fields(
    (100, "cpu_percent", "percent"),
    (101, "load_average", ""),
    (102, "memory_total_bytes", "bytes"),
    (103, "memory_available_bytes", "bytes"),
    (104, "swap_total_bytes", "bytes"),
    (105, "swap_used_bytes", "bytes"),
    (106, "memory_some_percent", "percent"),
    (107, "memory_full_percent", "percent"),
    (108, "memory_pressure_events", "count"),
    (109, "cpu_some_percent", "percent"),
    (110, "io_some_percent", "percent"),
    (111, "io_full_percent", "percent"),
    (112, "state_disk_free_bytes", "bytes"),
    (113, "models_disk_free_bytes", "bytes"),
)
ENGINE: Final = _fields(
    (200, "requests_running", "count"),
    (201, "requests_waiting", "count"),
    (202, "slots", "count"),
    (203, "slots_full", ""),
    (204, "kv_used_percent", "percent"),
    (205, "generated_tokens_per_second", "tokens/s"),
    (206, "prompt_tokens_per_second", "tokens/s"),
    (207, "requests_per_second", "1/s"),
    (208, "error_ratio", "ratio"),
    (209, "cache_hit_ratio", "ratio"),
    (210, "generated_tokens_total", "tokens"),
    (211, "prompt_tokens_total", "tokens"),
    (212, "requests_total", "count"),
    (213, "failed_total", "count"),
    (214, "time_to_first_token_p50_seconds", "seconds"),
    (215, "time_to_first_token_p99_seconds", "seconds"),
    (216, "inter_token_p50_seconds", "seconds"),
    (217, "inter_token_p99_seconds", "seconds"),
    (218, "request_p50_seconds", "seconds"),
    (219, "request_p99_seconds", "seconds"),
    (220, "load_seconds", "seconds"),
    (221, "restarts", "count"),
    (222, "slots_busy", "count"),
    (223, "request_tokens_per_second", "tokens/s"),
    (224, "prefill_tokens_per_second", "tokens/s"),
    (225, "cached_tokens_total", "tokens"),
    (226, "preemptions_total", "count"),
    (227, "queue_p50_seconds", "seconds"),
    (228, "queue_p99_seconds", "seconds"),
    (229, "prefill_p50_seconds", "seconds"),
    (230, "prefill_p99_seconds", "seconds"),
    (231, "decode_p50_seconds", "seconds"),
    (232, "decode_p99_seconds", "seconds"),
)
BY_NAME: Final = {field.name: field for field in (*DEVICE, *HOST, *ENGINE)}
BY_NUMBER: Final = {field.number: field for field in BY_NAME.values()}
# Every one of them, where a name is asked.
ALL: Final = "all"
# What is told of a subject where nobody says which.
USUAL: Final = tuple(
    BY_NAME[name]
    for name in (
        "memory_used_bytes",
        "utilization_percent",
        "temperature_celsius",
        "power_watts",
        "cpu_percent",
        "memory_available_bytes",
        "generated_tokens_per_second",
        "requests_running",
        "requests_waiting",
    )
)


def named(names: tuple[str, ...], subjects: tuple[str, ...] = ()) -> tuple[Field, ...]:
    """The fields of these names, the usual ones for none, every one for `all`.

    Raises OptionInvalid, with the names that there are of such subjects.
    """
    if names == (ALL,):
        return tuple(BY_NAME.values())
    found: list[Field] = []
    for name in names:
        field = BY_NAME.get(name)
        if field is None:
            raise OptionInvalid(field="fields", problem=_missing(name, subjects))
        if field in found:
            raise OptionInvalid(field="fields", problem=f"{name} is named twice")
        found.append(field)
    return tuple(found) or USUAL


def fields_for(subject: str, fields: tuple[Field, ...]) -> tuple[Field, ...]:
    """Those that are kept of a subject of its kind."""
    noun, _, _ = subject.partition("/")
    kept = {"devices": DEVICE, "host": HOST}.get(noun, ENGINE)
    return tuple(field for field in fields if field in kept)


def _missing(name: str, subjects: tuple[str, ...]) -> str:
    if name == ALL:
        return f"{ALL!r} has each of them already; name it alone"
    # Nearer than the words that most names share, _bytes and _seconds.
    near = difflib.get_close_matches(name, BY_NAME, n=3, cutoff=0.7)
    if near:
        return f"there is no {name!r}; did you mean {' or '.join(near)}?"
    every = tuple(BY_NAME.values())
    kept = {f.name: None for subject in subjects for f in fields_for(subject, every)} or BY_NAME
    return f"there is no {name!r}; there are {', '.join(kept)}; {ALL!r} is every one"
