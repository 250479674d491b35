"""A /sys of the test's own: NUMA nodes and the slots of cards."""

from __future__ import annotations

from pathlib import Path


def node(root: Path, number: int, cpus: str) -> None:
    folder = root / f"devices/system/node/node{number}"
    folder.mkdir(parents=True)
    (folder / "cpulist").write_text(f"{cpus}\n")


def two_nodes(root: Path, first: str, second: str) -> None:
    node(root, 0, first)
    node(root, 1, second)


def slot(root: Path, bus_id: str, node: str, cpus: str) -> None:
    folder = root / f"bus/pci/devices/{bus_id}"
    folder.mkdir(parents=True)
    (folder / "numa_node").write_text(f"{node}\n")
    (folder / "local_cpulist").write_text(f"{cpus}\n")


def bind(root: Path, *bus_ids: str) -> None:
    """The NVIDIA kernel driver takes these cards."""
    folder = root / "bus/pci/drivers/nvidia"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("bind", "new_id", *bus_ids):
        (folder / name).touch()


def unbind(root: Path, bus_id: str) -> None:
    """It lets go of one."""
    (root / "bus/pci/drivers/nvidia" / bus_id).unlink()
