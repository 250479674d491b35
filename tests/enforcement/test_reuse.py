"""R8: of hundreds of pids that were another's a moment before, not one is signalled."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from tests.project.tree import ROOT
from tests.proof.record import record

pytestmark = [pytest.mark.proof, pytest.mark.timeout(600)]

REUSES = 300
NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc"]


def test_no_signal_goes_to_another_process_of_that_pid() -> None:
    probe = [*NAMESPACE, "/bin/sh", "-c", "echo 4000 > /proc/sys/kernel/ns_last_pid"]
    allowed = subprocess.run(probe, capture_output=True, text=True, timeout=60, check=False)
    if allowed.returncode != 0:
        pytest.skip(f"this host lets us choose no pids (it needs root): {allowed.stderr.strip()}")
    began = time.monotonic()
    ran = subprocess.run(
        [*NAMESPACE, sys.executable, "-m", "tests.enforcement.reuse", str(REUSES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    counts = json.loads(ran.stdout.splitlines()[-1])
    seconds = time.monotonic() - began
    for who in ("patrol", "identity"):
        wrong = counts[f"{who} wrong"]
        record(f"R8 pid reuse: {who}", REUSES, counts[who], wrong, seconds)
        assert (counts[who], wrong) == (REUSES, 0)
    # Whoever goes by pid and start time would have been wrong this often.
    assert counts["within one tick"] > 0
    assert counts["guilty"] == counts["guilty ended"] > 0
