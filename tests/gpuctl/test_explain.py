from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from gpud.v1 import reservations_pb2 as r
from tests.fakes.daemon import FakeDaemon
from tests.gpuctl import samples
from tests.gpuctl.conftest import Gpuctl

Golden = Callable[[str, str], None]


def test_explain(gpuctl: Gpuctl, daemon: FakeDaemon, golden: Golden) -> None:
    daemon.answers["Explain"] = samples.explanation()
    ended = gpuctl("explain --vram 40GiB --alternative 2x4GiB@gpu0,gpu1")
    assert ended.code == 72
    assert all(len(line) <= 80 for line in ended.out.splitlines())
    assert "\x1b" not in ended.out
    golden("explain", ended.out)


def test_explain_for_programs(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["Explain"] = samples.explanation()
    ended = gpuctl("explain --vram 40GiB -o json")
    assert ended.code == 72
    plain = json.loads(ended.out)
    assert plain["reason"] == "VRAM_INSUFFICIENT"
    assert plain["devices"][0]["holders"][1]["pid"] == 77


def test_what_fits_ends_with_0(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    answer = r.ExplainResponse(fits=True, summary="4 GiB on gpu0")
    answer.devices.add(alias="gpu0", needed_bytes=4 * samples.GIB, fits=True)
    daemon.answers["Explain"] = answer
    ended = gpuctl("explain --vram 4GiB")
    assert ended.code == 0
    assert ended.out.splitlines()[-1] == "4 GiB on gpu0"
    assert "remedy" not in ended.out


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("VRAM_INSUFFICIENT", 72),
        ("QUOTA_EXCEEDED", 72),
        ("QUEUE_FULL", 72),
        ("DEVICE_UNAVAILABLE", 73),
        ("NODE_DRAINING", 73),
        ("RECONCILING", 78),
    ],
)
def test_it_ends_as_reserve_would(
    reason: str, code: int, gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    daemon.answers["Explain"] = r.ExplainResponse(summary="cannot", reason=reason)
    ended = gpuctl("explain --vram 4GiB")
    assert ended.code == code
    of_quota = "--wait cannot help: what exceeds a quota is refused at once"
    assert ended.out.splitlines()[-1] == (
        of_quota if reason == "QUOTA_EXCEEDED" else "waiting cannot help"
    )


def test_no_names_in_an_explanation(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["Explain"] = samples.explanation()
    assert gpuctl("explain --vram 4GiB -o name").code == 2
