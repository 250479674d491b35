"""What README says of who may call: the table of rights, and a configuration that loads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from gpud.access.rights import RIGHTS
from gpud.config import load

ROOT = Path(__file__).parents[2]
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
