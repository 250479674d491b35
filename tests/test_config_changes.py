"""What differs between two configurations, and what of it counts at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpud import config
from gpud.config_changes import ConfigChange, Kind, changes, in_force
from gpud.settings import Config

BEFORE = """
[models]
roots = ["/srv"]
[models.a]
path = "a.gguf"
[models.b]
path = "b.gguf"
[quotas.default]
streams = 4
"""


def loaded(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "gpud.toml"
    path.write_text(text)
    return config.load(path, {})


def test_nothing_differs_from_itself(tmp_path: Path) -> None:
    assert changes(loaded(tmp_path, BEFORE), loaded(tmp_path, BEFORE)) == ()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"b.gguf"', '"c.gguf"', "models.b changed"),
        ('[models.b]\npath = "b.gguf"\n', "", "models.b removed"),
        ("[quotas.default]", '[models.c]\npath = "c"\n[quotas.default]', "models.c added"),
        ("streams = 4", "streams = 5", "quotas.default changed"),
        (
            "[models]\n",
            '[policy]\non_overuse = "terminate"\n[models]\n',
            "policy.on_overuse changed",
        ),
        ("[models]\n", "[limits.default]\ncpus = 2.0\n[models]\n", "limits.default.cpus changed"),
        ("[models]\n", '[health]\nwatch = "1s"\n[models]\n', "health.watch changed"),
        ('"/srv"', '"/srv", "/mnt"', "models.roots changed"),
        (
            "[models]\n",
            "[engines.vllm]\nload_stall = 9\n[models]\n",
            "engines.vllm.load_stall changed",
        ),
        (
            "[models]\n",
            '[engines.llama_cpp]\nbinary = "x"\n[models]\n',
            "engines.llama_cpp.binary changed (needs a restart)",
        ),
        (
            "[models]\n",
            '[node]\nstate_dir = "/other"\n[models]\n',
            "node.state_dir changed (needs a restart)",
        ),
        (
            "[models]\n",
            "[models]\nallow_http = true\n",
            "models.allow_http changed (needs a restart)",
        ),
    ],
)
def test_each_difference_is_told_by_its_key(tmp_path: Path, old: str, new: str, told: str) -> None:
    before = loaded(tmp_path, BEFORE)
    after = loaded(tmp_path, BEFORE.replace(old, new, 1))
    assert list(map(str, changes(before, after))) == [told]
    applied = in_force(before, after)
    left = changes(applied, after)
    # What could be taken over is not told again; what could not is, each time.
    assert list(map(str, left)) == ([told] if "restart" in told else [])


def test_several_are_told_in_order(tmp_path: Path) -> None:
    after = BEFORE.replace("streams = 4", "streams = 5") + '[node]\nstate_dir = "/x"\n'
    found = changes(loaded(tmp_path, BEFORE), loaded(tmp_path, after))
    assert found == (
        ConfigChange(key="node.state_dir", kind=Kind.CHANGED, needs_restart=True),
        ConfigChange(key="quotas.default", kind=Kind.CHANGED, needs_restart=False),
    )
