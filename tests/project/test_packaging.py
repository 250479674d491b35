"""The files around the code: the tasks, the scripts, the changelog, what must not be in them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.tree import PACKAGING, ROOT, project_files, pyproject, shown

MAKEFILE = (ROOT / "Makefile").read_text()
VERSION_HEADING = re.compile(r"\[(Unreleased|\d+\.\d+\.\d+)\](?: - \d{4}-\d{2}-\d{2})?")
CHANGE_HEADINGS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
# Written in pieces, so that this file is not its own first finding.
FOREIGN_FOLDERS = tuple("/" + name + "/" for name in ("work", "root", "home"))


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


# --- Makefile -----------------------------------------------------------------------------------


def test_every_task_has_a_line_of_help() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony is not None
    explained = re.findall(r"^([a-z-]+):.*## \S.*$", MAKEFILE, re.MULTILINE)
    assert sorted(explained) == sorted(phony[1].split())
    assert {"setup", "demo", "test", "check", "fix", "proto", "bench"} <= set(explained)


def test_make_alone_lists_the_tasks() -> None:
    listed = run("make", "--no-print-directory")
    assert listed.returncode == 0, listed.stderr
    assert "make demo " in listed.stdout
    assert len(listed.stdout.splitlines()) == len(re.findall(r"^[a-z-]+:.*##", MAKEFILE, re.M))


def test_the_tools_keep_their_caches_in_the_project() -> None:
    for name in ("XDG_CACHE_HOME", "PIP_CACHE_DIR", "BUF_CACHE_DIR", "RUFF_CACHE_DIR"):
        assert re.search(rf"^export {name} := \$\(cache\)", MAKEFILE, re.MULTILINE), name
    assert "cache := $(CURDIR)/.build/cache" in MAKEFILE


def test_the_whole_check_is_make_test_and_that_of_vllm() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert script.splitlines()[-1].endswith(" bash -c 'make test && make test-vllm'")


# --- scripts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script", [path for path in project_files() if path.suffix == ".sh"], ids=shown
)
def test_scripts_parse_and_can_be_run(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert run("bash", "-n", script).stderr == ""


@pytest.fixture
def stub_server(tmp_path: Path) -> Path:
    program = tmp_path / "llama-server"
    program.write_text("#!/bin/sh\necho version: 1 >&2\n")
    program.chmod(0o755)
    return program


def test_a_named_engine_is_used_as_it_is(stub_server: Path) -> None:
    got = run(PACKAGING / "get_engine.sh", LLAMA_SERVER=str(stub_server))
    assert (got.returncode, got.stdout) == (0, f"{stub_server}\n")


def test_an_engine_on_the_path_is_used(stub_server: Path) -> None:
    got = run(PACKAGING / "get_engine.sh", PATH=f"{stub_server.parent}:{os.environ['PATH']}")
    assert (got.returncode, got.stdout) == (0, f"{stub_server}\n")


def test_a_named_vllm_is_used_as_it_is_and_one_on_the_path_is_found(tmp_path: Path) -> None:
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    script = PACKAGING / "vllm" / "get_vllm.sh"
    for environment in ({"VLLM": str(program)}, {"PATH": f"{tmp_path}:{os.environ['PATH']}"}):
        got = run(script, **environment)
        assert (got.returncode, got.stdout) == (0, f"{program}\n")
    got = run(script, VLLM=str(tmp_path / "nothing"))
    assert (got.returncode, got.stdout) == (1, "")
    assert f"$VLLM is {tmp_path}/nothing, which is no program" in got.stderr


@pytest.mark.parametrize("content", [None, "#!/bin/sh\nexit 3\n"], ids=["missing", "broken"])
def test_a_named_engine_that_does_not_run_is_told(content: str | None, tmp_path: Path) -> None:
    program = tmp_path / "llama-server"
    if content is not None:
        program.write_text(content)
        program.chmod(0o755)
    got = run(PACKAGING / "get_engine.sh", LLAMA_SERVER=str(program))
    assert (got.returncode, got.stdout) == (1, "")
    assert f"$LLAMA_SERVER is {program}" in got.stderr


def test_a_python_that_is_too_old_is_told(tmp_path: Path) -> None:
    got = run(PACKAGING / "create_environment.sh", tmp_path / "new", PYTHON="/bin/false")
    assert got.returncode == 1
    assert "needs Python 3.11 or newer" in got.stderr
    assert not (tmp_path / "new").exists()


def test_dependency_groups_are_printed_line_by_line() -> None:
    for name, group in pyproject()["dependency-groups"].items():
        assert run(sys.executable, PACKAGING / "dependency_group.py", name).stdout == (
            "\n".join(group) + "\n"
        )
    unknown = run(sys.executable, PACKAGING / "dependency_group.py", "nope")
    assert unknown.returncode == 1
    assert "there are dev, generate" in unknown.stderr


# --- words --------------------------------------------------------------------------------------


def test_the_changelog_keeps_its_form() -> None:
    lines = (PACKAGING / "CHANGELOG.md").read_text().splitlines()
    assert lines[0] == "# Changelog"
    versions = [line.removeprefix("## ") for line in lines if line.startswith("## ")]
    assert versions[0] == "[Unreleased]"
    assert [version for version in versions if not VERSION_HEADING.fullmatch(version)] == []
    changes = {line.removeprefix("### ") for line in lines if line.startswith("### ")}
    assert changes <= CHANGE_HEADINGS
    assert changes


def test_every_file_of_packaging_is_explained() -> None:
    explained = re.findall(r"^\| `([^`]+)` \|", (PACKAGING / "README.md").read_text(), re.M)
    present = {
        path.name
        for path in project_files()
        if path.parent == PACKAGING and path.name != "README.md"
    }
    assert set(explained) == present


def test_no_path_of_a_machine() -> None:
    found = [
        f"{shown(path)}: {folder}"
        for path in project_files()
        for folder in (*FOREIGN_FOLDERS, f"{ROOT}/")
        if folder.encode() in path.read_bytes()
    ]
    assert found == []


@pytest.mark.parametrize(
    "page", [path for path in project_files() if path.suffix == ".md"], ids=shown
)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []
