"""The page for what was made for dcgm-exporter."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from gpud.devices.snapshot import DeviceKind, Readings, Sample
from gpud.telemetry.page.dcgm import DcgmPage
from tests.telemetry.page.exposition import read, value
from tests.telemetry.page.moment import NOW, SILENT, info, snapshot

# What its own dashboard (grafana.com 12239) asks for, but for the tensor cores, which NVML does
# not tell of.
OF_THE_DASHBOARD = (
    "DCGM_FI_DEV_GPU_TEMP",
    "DCGM_FI_DEV_POWER_USAGE",
    "DCGM_FI_DEV_SM_CLOCK",
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
    "DCGM_FI_DEV_FB_USED",
    "DCGM_FI_DEV_FB_FREE",
)


def cards(**changes: object) -> tuple[Sample, ...]:
    first, second = snapshot([info(0), info(1)], 1, random.Random(1)).samples
    return (replace(first, **changes), second)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", OF_THE_DASHBOARD)
@pytest.mark.parametrize("label", ["Hostname", "hostname"])
def test_its_dashboard_finds_its_series_and_labels(name: str, label: str) -> None:
    made = DcgmPage("node1", label).render(cards(), NOW.boottime)
    of = {
        "gpu": "1",
        "UUID": info(1).uuid,
        "pci_bus_id": "0000:01:00.0",
        "device": "nvidia1",
        "modelName": "NVIDIA H200",
        label: "node1",
    }
    assert value(made, name, **of) is not None


def test_units_are_those_of_dcgm() -> None:
    told = Readings(
        memory_used_bytes=3 << 30,
        memory_driver_reserved_bytes=1 << 30,
        utilization_percent=40.0,
        sm_clock_mhz=1410,
        energy_joules=1.5,
        nvlink_sent_bytes_per_second=1.024e9,
        nvlink_received_bytes_per_second=2.048e9,
    )
    made = DcgmPage("n", "Hostname").render(
        cards(readings=told, xids={31: 1, 79: 1})[:1], NOW.boottime
    )
    assert value(made, "DCGM_FI_DEV_FB_USED") == 3072
    assert value(made, "DCGM_FI_DEV_FB_FREE") == (128 - 4) * 1024
    assert value(made, "DCGM_FI_DEV_FB_RESERVED") == 1024
    assert value(made, "DCGM_FI_DEV_GPU_UTIL") == 40
    assert value(made, "DCGM_FI_PROF_GR_ENGINE_ACTIVE") == 0.4
    assert value(made, "DCGM_FI_DEV_SM_CLOCK") == 1410
    # The reader here gives every counter an ending that Prometheus does not ask for.
    assert value(made, "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION_total") == 1500
    assert value(made, "DCGM_FI_DEV_XID_ERRORS") == 79
    assert value(made, "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL") == 3000
    # What it does not tell is absent, never 0.
    assert value(made, "DCGM_FI_DEV_GPU_TEMP") is None


def test_the_hosts_memory_is_no_card_and_a_slice_has_its_cards_number() -> None:
    whole, other = cards()
    mig = replace(
        other.info, kind=DeviceKind.MIG, uuid="MIG-1", alias="gpu1", index=1,
        model_name="NVIDIA H200 MIG 1g.18gb", parent_uuid=whole.info.uuid,
    )  # fmt: skip
    host = replace(other.info, kind=DeviceKind.HOST, uuid="HOST", alias="host")
    made = DcgmPage("n", "Hostname").render(
        (whole, replace(other, info=mig), replace(other, info=host)), NOW.boottime
    )
    of = {
        "UUID": "MIG-1", "gpu": "0", "modelName": "NVIDIA H200", "GPU_I_PROFILE": "1g.18gb"
    }  # fmt: skip
    assert value(made, "DCGM_FI_DEV_FB_USED", **of) is not None
    (card,) = [
        dict(labels) for name, labels in read(made)
        if name == "DCGM_FI_DEV_FB_USED" and ("UUID", whole.info.uuid) in labels
    ]  # fmt: skip
    assert "GPU_I_PROFILE" not in card
    assert not any(("UUID", "HOST") in labels for _, labels in read(made))


@pytest.mark.parametrize("changes", SILENT.values(), ids=SILENT)
def test_a_card_that_does_not_answer_has_its_totals_left(changes: dict[str, Any]) -> None:
    gone, _ = cards(**changes)
    made = DcgmPage("n", "Hostname").render((gone,), NOW.boottime)
    assert {name for name, _ in read(made)} == {
        "DCGM_FI_DEV_FB_TOTAL",
        "DCGM_FI_DEV_XID_ERRORS",
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION_total",
        "DCGM_FI_DEV_PCIE_REPLAY_COUNTER_total",
        "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL_total",
        "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL_total",
        "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS_total",
        "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS_total",
    }


def test_without_cards_it_is_empty() -> None:
    assert DcgmPage("n", "Hostname").render((), NOW.boottime) == ""
