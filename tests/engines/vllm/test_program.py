"""The program vllm found, and its --help read once for each build; a stub stands in for it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from gpud.engines.vllm.program import Programs
from gpud.errors import EngineMissing

HELP = Path(__file__).parents[2] / "golden/vllm/serve_help.txt"


def write_program(folder: Path, help_: Path = HELP, interpreter: str = "/bin/sh") -> Path:
    """Prints the help when it is asked as vLLM is, and notes that it ran."""
    folder.mkdir(exist_ok=True)
    program = folder / "vllm"
    program.write_text(
        f'#!{interpreter}\necho "$@" >> {folder}/asked\n'
        f'test "$*" = "serve --help=all" && cat {help_}\nenv > {folder}/environment\n'
    )
    program.chmod(0o755)
    return program


def asked(program: Path) -> list[str]:
    return (program.parent / "asked").read_text().splitlines()


async def test_it_is_asked_once_and_never_again_by_a_later_life(tmp_path: Path) -> None:
    program = write_program(tmp_path / "bin")
    programs = Programs((str(program), "serve"), tmp_path / "kept")
    found, same = await asyncio.gather(programs.find(), programs.find())
    assert found == same
    assert found.path == str(program)
    assert "--kv-cache-memory-bytes" in found.flags
    assert asked(program) == ["serve --help=all"]
    later = await Programs((str(program), "serve"), tmp_path / "kept").find()
    assert later == found
    assert len(asked(program)) == 1


async def test_another_build_at_the_same_place_is_asked_anew(tmp_path: Path) -> None:
    program = write_program(tmp_path / "bin")
    programs = Programs((str(program), "serve"), tmp_path / "kept")
    await programs.find()
    os.utime(program, ns=(1, 1))
    await programs.find()
    await programs.find()
    assert len(asked(program)) == 2


@pytest.mark.parametrize("content", [b"", b"{", b'{"path": 1}', b"[]"])
async def test_what_was_kept_and_is_damaged_is_read_anew(tmp_path: Path, content: bytes) -> None:
    program = write_program(tmp_path / "bin")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "flags.json").write_bytes(content)
    assert (await Programs((str(program), "serve"), tmp_path / "kept").find()).flags


async def test_the_help_is_asked_for_with_nothing_inherited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    program = write_program(tmp_path / "bin")
    await Programs((str(program), "serve"), tmp_path / "kept").find()
    names = {
        line.partition("=")[0]
        for line in (program.parent / "environment").read_text().splitlines()
    }
    assert "HF_HUB_OFFLINE" in names
    assert not names & {"VLLM_API_KEY", "PYTHONPATH"}


async def test_the_version_is_that_of_the_package_in_its_own_environment(tmp_path: Path) -> None:
    """By the interpreter that the script names; what it starts there takes no second."""
    interpreter = tmp_path / "venv" / "bin" / "python3"
    interpreter.parent.mkdir(parents=True)
    interpreter.write_text('#!/bin/sh\necho "0.32.0+cpu"\n')
    interpreter.chmod(0o755)
    program = write_program(tmp_path / "bin")
    program.write_text(f"#!{interpreter}\n")
    programs = Programs((str(program), "serve"), tmp_path / "kept")
    with pytest.raises(EngineMissing, match="its --help lacks --host"):
        await programs.find()
    interpreter.write_text(f'#!/bin/sh\ntest "$1" = -I && echo "0.32.0+cpu" || cat {HELP}\n')
    assert (await programs.find()).version == "0.32.0+cpu"


async def test_a_program_that_tells_no_version_is_used_all_the_same(tmp_path: Path) -> None:
    program = write_program(tmp_path / "bin")
    assert (await Programs((str(program), "serve"), tmp_path / "kept").find()).version == "unknown"


async def test_a_python_without_vllm_is_none(tmp_path: Path) -> None:
    words = (sys.executable, "-c", "pass")
    with pytest.raises(EngineMissing, match="its --help lacks"):
        await Programs(words, tmp_path / "kept").find()


async def test_what_is_missing_or_no_vllm_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(EngineMissing, match=r"not on PATH: name it in engines.vllm.command"):
        await Programs(("vllm", "serve"), tmp_path / "kept").find()
    with pytest.raises(EngineMissing, match="no such program"):
        await Programs((str(tmp_path / "vllm"), "serve"), tmp_path / "kept").find()
    empty = tmp_path / "empty"
    empty.write_text("usage: other\n  --port PORT  a port\n")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    program = write_program(tmp_path / "bin", empty)
    with pytest.raises(EngineMissing, match="its --help lacks --host, --served-model-name"):
        await Programs((str(program), "serve"), tmp_path / "kept").find()
    assert not (tmp_path / "kept" / "flags.json").exists()


async def test_it_is_found_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = write_program(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    found = await Programs(("vllm", "serve"), tmp_path / "kept").find()
    assert found.path == str(program)
