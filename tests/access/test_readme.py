"""What README says of who may call: the table of rights, and a configuration that loads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from gpuctl.commands.reservations import reservation_columns
from gpuctl.commands.status import DEVICE_COLUMNS, bar_columns
from gpuctl.tables import Column
from gpuctl.top.shown.devices import device_fields
from gpuctl.top.shown.field import fitted
from gpud.access.rights import RIGHTS
from gpud.config import load
from gpud.v1.telemetry_pb2 import HostReadings

ROOT = Path(__file__).parents[2]
PRINTED: dict[str, tuple[tuple[Column[Any], ...], ...]] = {
    "RESERVATION": (reservation_columns(0.0, {}),),
    "DEVICE": (DEVICE_COLUMNS, bar_columns(6, plain=False)),
}
HEAD = ("| role | service | methods |", "|---|---|---|")


def table() -> list[str]:
    """README's table as it has to be."""
    return [*HEAD, *_rows()]


def _rows() -> Iterator[str]:
    told = [
        (role.name.lower(), *method.removeprefix("gpud.v1.").split("/"))
        for method, role in RIGHTS.items()
    ]
    for (role, service), group in groupby(told, key=lambda row: row[:2]):
        yield f"| {role} | {service} | {', '.join(row[2] for row in group)} |"


def section() -> str:
    text = (ROOT / "README.md").read_text()
    return text.partition("## Who may call\n")[2].partition("\n## ")[0]


def test_the_table_of_rights_is_that_of_the_code() -> None:
    lines = section().splitlines()
    assert [line for line in lines if line.startswith("|")] == table()


def test_its_configuration_is_one(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```toml\n(.*?)^```", section(), re.DOTALL | re.MULTILINE)
    file = tmp_path / "gpud.toml"
    file.write_text(block)
    config = load(file, {})
    assert set(config.sockets) == {"operator"}
    assert config.tokens["ci"].role == "viewer"
    assert config.access.denied == str(tmp_path / "denied")


def test_its_tables_have_the_columns_that_are_printed() -> None:
    for line in (ROOT / "README.md").read_text().splitlines():
        first, _, _ = line.partition(" ")
        if first in PRINTED:
            shown = [[c.header for c in table if not c.wide] for table in PRINTED[first]]
            # `gpuctl top` has columns of its own.
            top = fitted(device_fields(str.ljust, HostReadings()), 80)
            shown.append([field.header for field, _ in top])
            assert line.split() in [" ".join(headers).split() for headers in shown]


def test_it_takes_five_commands_to_a_remote_status() -> None:
    block = section().partition("```console\n")[2].partition("```")[0]
    commands = [line for line in block.splitlines() if re.match(r"\w+\$ ", line)]
    at = next(n for n, line in enumerate(commands) if line.endswith("$ gpuctl status"))
    assert (at + 1, commands[0].split()[1:4]) == (5, ["gpud", "tls", "init"])
    assert " > " not in block
