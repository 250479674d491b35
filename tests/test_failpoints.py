"""Each durable change has its pair of points, each is in the code; off they do nothing."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys

import pytest

from gpud.failpoints import CHANGES, EXIT_CODE, POINTS, around, from_environment
from tests.project.tree import own_modules, parsed

PASSING = """
from gpud.failpoints import InjectedError, around
for number in range(3):
    print(number, flush=True)
    try:
        with around("store.commit"):
            print("committed", flush=True)
    except InjectedError as error:
        print(error, flush=True)
"""


def used() -> list[str]:
    """The argument of each `around(…)` in the code; "" where it is no plain text."""
    found = []
    for path in own_modules():
        if path.name == "failpoints.py":
            continue
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "around":
                (argument,) = node.args
                found.append(argument.value if isinstance(argument, ast.Constant) else "")
    return found


def test_each_change_listed_is_in_the_code_once_and_no_other() -> None:
    assert sorted(used()) == sorted(CHANGES)


def test_points_come_in_pairs() -> None:
    assert len(POINTS) == 2 * len(CHANGES)
    for change in CHANGES:
        assert {f"{change}.before", f"{change}.after"} <= POINTS


def test_off_it_is_one_object_that_does_nothing() -> None:
    assert "GPUD_FAILPOINT" not in os.environ
    assert from_environment({}) is None
    assert around("store.commit") is around("store.tell")


@pytest.mark.parametrize(
    "said",
    ["nowhere.before=kill", "store.commit=kill", "store.commit.before", "store.commit.before=burn",
     "store.commit.before:0=kill", "store.commit.before:x=kill", "=kill"],
)  # fmt: skip
def test_a_point_that_is_none_is_refused(said: str) -> None:
    """A proof with a wrong name would prove nothing."""
    with pytest.raises(ValueError, match="cannot use GPUD_FAILPOINT"):
        from_environment({"GPUD_FAILPOINT": said})


def passing(said: str, armed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PASSING],
        env={**os.environ, "GPUD_FAILPOINT": said, "GPUD_FAILPOINT_ARMED": armed},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_kill_is_a_sigkill_before_or_after_the_change() -> None:
    before = passing("store.commit.before=kill")
    assert (before.returncode, before.stdout.split()) == (-signal.SIGKILL, ["0"])
    after = passing("store.commit.after=kill")
    assert (after.returncode, after.stdout.split()) == (-signal.SIGKILL, ["0", "committed"])


def test_the_n_th_passing_is_meant() -> None:
    ended = passing("store.commit.before:3=exit")
    assert ended.returncode == EXIT_CODE
    assert ended.stdout.split() == ["0", "committed", "1", "committed", "2"]


def test_an_error_is_raised_once() -> None:
    ended = passing("store.commit.before:2=error")
    assert ended.returncode == 0
    assert ended.stdout.count("committed") == 2
    assert "injected at store.commit.before" in ended.stdout


def test_nothing_counts_until_it_is_armed(tmp_path: os.PathLike[str]) -> None:
    armed = os.path.join(tmp_path, "armed")
    assert passing("store.commit.before=exit", armed).returncode == 0
    with open(armed, "w"):
        assert passing("store.commit.before=exit", armed).returncode == EXIT_CODE


def test_stop_holds_the_process_up() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PASSING],
        env={**os.environ, "GPUD_FAILPOINT": "store.commit.before=stop"},
        stdout=subprocess.PIPE,
    )
    try:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        os.kill(process.pid, signal.SIGCONT)
        output, _ = process.communicate(timeout=60)
        assert output.split().count(b"committed") == 3
    finally:
        process.kill()
        process.wait(20)
