"""[quotas] of the configuration: what the ledger makes of it, and what is wrong in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpud import assembly
from gpud.config import load
from gpud.errors import ConfigInvalid
from gpud.ledger.admission.policy import OwnerQuota
from gpud.settings import Policy, Quota, Size
from tests.fakes.cards import GIB


def test_the_configurations_tables_are_the_ledgers_quotas() -> None:
    quotas = {
        "default": Quota(reservations=3),
        "anna@host": Quota(gpu_bytes=Size(2 * GIB)),
    }
    made = assembly.ledger_settings(Policy(), quotas).quotas
    assert made.of("anybody") == OwnerQuota(key="quotas.default", reservations=3)
    assert made.of("anna@host") == OwnerQuota(key='quotas."anna@host"', gpu_bytes=2 * GIB)
    assert not assembly.ledger_settings(Policy()).quotas


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[quotas.default]\ngpu_byte = 1", "quotas.default`; did you mean `gpu_bytes`"),
        ("[quotas]\ngpu_bytes = '8GiB'", "quotas.gpu_bytes`"),
        ("[quotas.a]\ngpu_bytes = -1", "quotas.a.gpu_bytes: is below 0"),
        ('[quotas."a@b"]\nhost_bytes = -1', 'quotas."a@b".host_bytes: is below 0'),
        ("[quotas.a]\nreservations = -1", "quotas.a.reservations`"),
        ("[quotas.a]\ngpu_bytes = '1 parsec'", "1 parsec"),
        ("[quotas.a]\ncalls_per_second = inf", "quotas.a.calls_per_second: is no number"),
        ("[quotas.'']\nqueued = 1", 'quotas."": names no owner'),
    ],
)
def test_a_wrong_table_is_named(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "gpud.toml"
    path.write_text(text)
    with pytest.raises(ConfigInvalid) as caught:
        load(path, {})
    assert told in str(caught.value)


def test_a_table_is_read_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "gpud.toml"
    path.write_text('[quotas.default]\ngpu_bytes = "24GiB"\n[quotas."anna@host"]\nqueued = 4\n')
    made = assembly.ledger_settings(Policy(), load(path, {}).quotas).quotas
    assert made.of("bert") == OwnerQuota(key="quotas.default", gpu_bytes=24 * GIB)
    assert made.of("anna@host") == OwnerQuota(key='quotas."anna@host"', queued=4)
