"""[history]: what can be set, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpud.config import load
from gpud.errors import ConfigInvalid
from gpud.units import MIB


def test_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "gpud.toml"
    file.write_text('[history]\nseconds = "1h"\nminutes = "365d"\nmax_bytes = "1GiB"\n')
    history = load(file, {}).history
    assert history.on
    assert [float(history.seconds), float(history.ten_seconds)] == [3600, 6 * 3600]
    assert [float(history.minutes), int(history.max_bytes)] == [365 * 86400, 1024 * MIB]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("seconds", "1m", "history.seconds: 60 s is not within 600 … 86400 s"),
        ("ten_seconds", "1h", "history.ten_seconds: 3600 s is not within 7200"),
        ("minutes", "1h", "history.minutes: 3600 s is not within 86400"),
        ("max_bytes", "1MiB", "history.max_bytes: 1 MiB is less than 4 MiB"),
        ("second", "1m", "did you mean"),
    ],
)
def test_what_makes_no_sense_is_refused(key: str, value: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "gpud.toml"
    file.write_text(f'[history]\n{key} = "{value}"\n')
    with pytest.raises(ConfigInvalid) as refused:
        load(file, {})
    assert words in str(refused.value)
