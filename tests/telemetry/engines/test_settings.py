"""[engine_metrics]: what can be set, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpud.config import load
from gpud.errors import ConfigInvalid


@pytest.mark.parametrize("interval", ["0", '"0s"', '"100ms"', '"1h"'])
def test_it_is_read(interval: str, tmp_path: Path) -> None:
    file = tmp_path / "gpud.toml"
    file.write_text(f'[engine_metrics]\ninterval = {interval}\nservice_label = "app"\n')
    read = load(file, {}).engine_metrics
    assert float(read.interval) in {0, 0.1, 3600}
    assert read.service_label == "app"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (
            "interval",
            "10ms",
            "engine_metrics.interval: 0.01 s is neither 0, for never, nor within",
        ),
        ("interval", "2h", "engine_metrics.interval: 7200 s is neither"),
        ("service_label", "", "engine_metrics.service_label: '' is no name of a label"),
        ("service_label", "x" * 64, "engine_metrics.service_label: 'xxx"),
        ("intervall", "1s", "did you mean"),
    ],
)
def test_what_makes_no_sense_is_refused(key: str, value: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "gpud.toml"
    file.write_text(f'[engine_metrics]\n{key} = "{value}"\n')
    with pytest.raises(ConfigInvalid) as refused:
        load(file, {})
    assert words in str(refused.value)
