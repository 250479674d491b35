"""Processes that were seen in /proc, looked at again."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

from gpud.instances.adoption import traces


def test_of_those_that_were_seen_the_same_processes_are_counted_while_they_live(
    tmp_path: Path,
) -> None:
    environment = {"PATH": "/usr/bin:/bin", traces.INSTANCE_NAME: f"of-{tmp_path.name}"}
    with (
        subprocess.Popen(["sleep", "60"], env=environment) as first,
        subprocess.Popen(["sleep", "60"], env=environment) as second,
    ):
        mine = {first.pid, second.pid}
        try:
            # Their environment is there once exec is done, which Popen has waited for.
            seen = [each for each in traces.find(tmp_path) if each.pid in mine]
            assert traces.living(seen) == 2
            another = replace(seen[0], start_time=seen[0].start_time + 1)
            assert traces.living([another]) == 0, "its pid is another's by now"
            first.kill()
            first.wait()
            assert traces.living(seen) == 1
        finally:
            first.kill()
            second.kill()
    assert traces.living(seen) == 0
