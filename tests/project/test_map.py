"""The map of the code leads to what is there: files, names in them, and the layers."""

from __future__ import annotations

import re
import tomllib
from functools import cache

import pytest

from tests.project.tree import ROOT, project_files

MAP = (ROOT / "gpud" / "README.md").read_text()
# `devices/bands.py`, or `config.py: _check`: seen from gpud/, from the root, or by name alone.
_NAMED = re.compile(r"`([\w/]+\.(?:py|proto|toml))(?:: ([\w., ]+))?`")


@cache
def texts() -> dict[str, str]:
    """Of the files that it may name, by their paths."""
    return {
        str(path.relative_to(ROOT)): path.read_text()
        for path in project_files()
        if path.suffix in {".py", ".proto", ".toml"}
    }


@pytest.mark.parametrize(("named", "symbols"), sorted(set(_NAMED.findall(MAP))))
def test_what_the_map_names_is_there(named: str, symbols: str) -> None:
    found = [text for path, text in texts().items() if f"/{path}".endswith(f"/{named}")]
    assert found, f"there is no {named}"
    for name in re.findall(r"\w+", symbols):
        assert any(re.search(rf"\b{name}\b", text) for text in found), f"no {name} in {named}"


def test_the_layers_are_those_that_are_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    checked = contracts["contracts"][0]["layers"]
    (shown,) = re.findall(r"^    __main__ .*(?:\n {4,}\S.*)*", MAP, re.MULTILINE)
    assert [re.findall(r"\w+", each) for each in shown.split("→")] == [
        re.findall(r"\w+", each) for each in checked
    ]
