"""Which programs a command may run."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from gpud.engines.command.program import Looks, ProgramRefused, check_program
from gpud.threads import ThreadRefused
from tests.fakes.threads import none_left


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "bin" / "server"
    path.parent.mkdir(mode=0o755)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def problem(path: Path) -> str:
    with pytest.raises(ProgramRefused) as refused:
        check_program(str(path))
    assert str(refused.value).startswith(f"cannot run {path}: ")
    return refused.value.problem


def test_ours_is_run_by_its_name_or_by_a_link(program: Path, tmp_path: Path) -> None:
    check_program(str(program))
    (tmp_path / "link").symlink_to(program)
    check_program(str(tmp_path / "link"))
    check_program("/bin/sh")


def test_what_others_could_change_is_not(program: Path, tmp_path: Path) -> None:
    program.chmod(0o757)
    assert problem(program) == "may be written by anybody: chmod o-w it"
    (tmp_path / "link").symlink_to(program)
    assert problem(tmp_path / "link") == f"{program} may be written by anybody: chmod o-w it"
    program.chmod(0o755)
    program.parent.chmod(0o777)
    assert problem(program) == f"{program.parent} may be written by anybody: chmod o-w it"
    program.parent.chmod(0o1777)  # as /tmp: nobody replaces another's file there
    check_program(str(program))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_a_group_of_others_could_change_is_not(program: Path) -> None:
    program.chmod(0o775)
    check_program(str(program))  # root's group, and ours
    os.chown(program, -1, 65534)
    assert problem(program) == "may be written by the group 65534: chmod g-w it"
    program.chmod(0o755)
    os.chown(program.parent, -1, 65534)
    program.parent.chmod(0o775)
    assert problem(program) == f"{program.parent} may be written by the group 65534: chmod g-w it"
    program.parent.chmod(0o1777)
    check_program(str(program))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_is_another_users_is_not(program: Path) -> None:
    os.chown(program, 65534, -1)
    assert "belongs to another user" in problem(program)
    os.chown(program, 0, -1)
    os.chown(program.parent, 65534, -1)
    assert f"{program.parent} belongs to another user" in problem(program)


def test_what_is_no_program_says_so(program: Path, tmp_path: Path) -> None:
    assert problem(tmp_path / "absent") == "no such file or directory"
    assert problem(tmp_path) == "is not a regular file"
    program.chmod(0o644)
    assert problem(program) == "is not executable: chmod +x it"


async def test_a_disk_that_hangs_holds_nobody_up_and_takes_one_thread(program: Path) -> None:
    answers, threads = threading.Event(), list[str]()

    def hang(path: str) -> None:
        threads.append(path)
        assert answers.wait(20)
        check_program(path)

    looks = Looks(hang)
    for _ in range(2):
        with pytest.raises(ProgramRefused, match=r"within 0\.05 s: its disk hangs"):
            await looks.check(str(program), 0.05)
    assert threads == [str(program)]
    waits = asyncio.ensure_future(looks.check(str(program)))
    await asyncio.sleep(0)
    answers.set()
    await waits
    with pytest.raises(ProgramRefused, match="not a regular file"):
        await looks.check(str(program.parent))
    assert len(threads) == 2


async def test_where_no_thread_starts_the_next_look_is_made(program: Path) -> None:
    looks = Looks()
    with none_left(), pytest.raises(ThreadRefused):
        await looks.check(str(program))
    await looks.check(str(program))
