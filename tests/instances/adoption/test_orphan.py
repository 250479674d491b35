"""Whose a process is that says it is an instance's: what proves it, and all that does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gpud.instances.adoption.orphan import Known, Trace, orphans
from gpud.instances.instance import ProcessIdentity
from gpud.instances.tree import custody

TOKEN = "secret"
IDENTITY = ProcessIdentity(pid=100, start_time=5000, boot_id="boot-1", inode=7, token=TOKEN)
ENGINE = Trace(
    pid=101, parent=100, start_time=5001, uid=10, command="engine", instance="m-1", token=TOKEN
)
KNOWN = Known(
    tokens=frozenset({"running"}),
    live_folders=frozenset({"m-2"}),
    custody={"m-1": IDENTITY},
    boot_id="boot-1",
    uid=10,
)


def test_one_whose_token_a_folder_has_is_ours() -> None:
    (found,) = orphans([ENGINE], KNOWN)
    assert found.provable
    assert found.instance == "m-1"


def test_one_that_says_another_name_is_the_folder_s() -> None:
    (found,) = orphans([replace(ENGINE, instance="m-9")], KNOWN)
    assert (found.provable, found.instance) == (True, "m-1")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"token": ""}, "only names an instance and holds no token"),
        ({"token": "", "instance": "", "folder": "m-1"}, "only works in an instance's folder"),
        ({"token": "guessed"}, "no folder of this state directory knows its token"),
        ({"uid": 11}, "it runs as user 11, our engines as user 10"),
        ({"start_time": 4999}, "it began before the instance whose token it holds"),
    ],
)
def test_one_that_is_not_proved_says_why(change: dict[str, object], why: str) -> None:
    (found,) = orphans([replace(ENGINE, **change)], KNOWN)  # type: ignore[arg-type]
    assert not found.provable
    assert why in found.why_not


def test_a_token_of_another_boot_proves_nothing() -> None:
    (found,) = orphans([ENGINE], replace(KNOWN, boot_id="boot-2"))
    assert found.why_not == "its token is of an earlier boot"


def test_what_runs_in_its_place_is_none() -> None:
    mine = replace(ENGINE, token="running", instance="m-2")
    assert orphans([mine], KNOWN) == ()


def test_who_only_looks_into_the_folder_of_one_that_runs_is_none() -> None:
    shell = replace(ENGINE, token="", instance="", folder="m-2")
    assert orphans([shell], KNOWN) == ()


def test_they_are_told_by_pid() -> None:
    found = orphans([replace(ENGINE, pid=pid) for pid in (30, 10, 20)], KNOWN)
    assert [each.trace.pid for each in found] == [10, 20, 30]


# What a folder says of its tree.


def test_what_a_folder_keeps_is_read_back(tmp_path: Path) -> None:
    custody.write(tmp_path, IDENTITY)
    assert custody.read(tmp_path) == IDENTITY
    assert custody.read_all(tmp_path.parent)[tmp_path.name] == IDENTITY
    assert (tmp_path / custody.CUSTODY_FILE).stat().st_mode & 0o777 == 0o600


def test_a_file_that_others_could_have_written_is_not_believed(tmp_path: Path) -> None:
    custody.write(tmp_path, IDENTITY)
    (tmp_path / custody.CUSTODY_FILE).chmod(0o666)
    assert custody.read(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"pid": "x"}', "\0"])
def test_a_file_that_makes_no_sense_is_nobody_s(tmp_path: Path, text: str) -> None:
    path = tmp_path / custody.CUSTODY_FILE
    path.write_text(text)
    path.chmod(0o600)
    assert custody.read(tmp_path) is None
