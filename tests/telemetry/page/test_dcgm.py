"""The page for what was made for dcgm-exporter."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from gpud.devices.snapshot import DeviceKind, Readings, Sample
from gpud.telemetry.page.dcgm import DcgmPage
from tests.telemetry.page.exposition import read, value
from tests.telemetry.page.moment import info, snapshot

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
    made = DcgmPage("node1", label).render(cards())
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
    )
    made = DcgmPage("n", "Hostname").render(cards(readings=told, xids={31: 1, 79: 1})[:1])
    assert value(made, "DCGM_FI_DEV_FB_USED") == 3072
    assert value(made, "DCGM_FI_DEV_FB_FREE") == (128 - 4) * 1024
    assert value(made, "DCGM_FI_DEV_FB_RESERVED") == 1024
    assert value(made, "DCGM_FI_DEV_GPU_UTIL") == 40
    assert value(made, "DCGM_FI_PROF_GR_ENGINE_ACTIVE") == 0.4
    assert value(made, "DCGM_FI_DEV_SM_CLOCK") == 1410
    # The reader here gives every counter an ending that Prometheus does not ask for.
    assert value(made, "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION_total") == 1500
    assert value(made, "DCGM_FI_DEV_XID_ERRORS") == 79
    # What it does not tell is absent, never 0.
    assert value(made, "DCGM_FI_DEV_GPU_TEMP") is None


def test_the_hosts_memory_is_no_card_and_a_slice_has_its_cards_number() -> None:
    whole, other = cards()
    mig = replace(
        other.info, kind=DeviceKind.MIG, uuid="MIG-1", alias="gpu0:0", index=None,
        parent_uuid=whole.info.uuid,
    )  # fmt: skip
    host = replace(other.info, kind=DeviceKind.HOST, uuid="HOST", alias="host")
    made = DcgmPage("n", "Hostname").render(
        (whole, replace(other, info=mig), replace(other, info=host))
    )
    assert value(made, "DCGM_FI_DEV_FB_USED", UUID="MIG-1", gpu="0", GPU_I_ID="gpu0:0") is not None
    assert not any(("UUID", "HOST") in labels for _, labels in read(made))


def test_without_cards_it_is_empty() -> None:
    assert DcgmPage("n", "Hostname").render(()) == ""
