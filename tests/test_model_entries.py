"""[models.NAME] and [profiles.NAME]: what they may say, and who must have written it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpud import assembly, config
from gpud.errors import ConfigInvalid
from gpud.models.model import EngineKind, Model, ModelOptions

COMMAND = "[models.w]\nengine = 'command'\nargv = ['/opt/w', '${PORT}']\n"
FULL = f"{COMMAND}health = '/up'\ndevice_bytes = '1GiB'\n"
WRONG = {
    "no profile": ("[models.a]\npath='a'\nprofile='p106'", ["models.a.profile", "mean p106-100?"]),
    "profile's name": ("[profiles.'A B']\nbatch = 5", ["profiles.A B", "lower-case"]),
    "profile's key": ("[profiles.a]\nbatsch = 5", ["batsch", "`batch`"]),
    "profile's value": ("[profiles.a]\ncache_type_k = 'q1'", ["profiles.a.cache_type_k"]),
    "not an option": ("[profiles.a]\npath = 'x'", ["`path`", "profiles.a"]),
    "flag": ("[models.a]\npath='a'\nextra_args=['--host']", ["models.a.extra_args", "--host"]),
    "half a flag": ("[models.a]\npath='a'\nextra_args=['--numa']", ["followed by nothing"]),
    "command's key": ("[models.a]\npath='a'\nhealth='/x'", ["models.a.health", '"command" alone']),
    "command's bytes": ("[models.a]\npath='a'\ndevice_bytes=5", ["models.a.device_bytes"]),
    "no argv": ("[models.a]\nengine = 'command'", ["models.a.argv", "is missing"]),
    "command with a profile": (f"{FULL}profile = 'p106-100'", ["models.w.profile"]),
    "command's flags": (f"{FULL}extra_args = ['--x']", ["models.w.extra_args", "into argv"]),
    "no bytes": (f"{COMMAND}health = '/up'", ["models.w.device_bytes", "not above 0"]),
    "no health": (f"{COMMAND}device_bytes = 5", ["models.w.health", "no path"]),
    "library": (f"{FULL}environment = {{LD_PRELOAD='x'}}", ["models.w.environment", "LD_PRELOAD"]),
    "counter": (f"{FULL}metrics='/m'\ncounters = {{speed='x'}}", ["models.w.counters"]),
    "label": ('[models.a]\npath="a"\nlabels={"k\\u0007" = "v"}', ["models.a.labels", "no label"]),
    "long label": (f"[models.a]\npath='a'\nlabels={{k = '{'v' * 256}'}}", ["models.a.labels"]),
    "value of an argv": ("[models.a]\nengine='command'\nargv=['/a', 5]", ["str", "int"]),
}  # fmt: skip


def read(folder: Path, text: str, mode: int = 0o644) -> dict[str, Model]:
    path = folder / "gpud.toml"
    path.write_text(text)
    path.chmod(mode)
    return assembly.models(config.load(path, {}))


@pytest.mark.parametrize(("text", "told"), WRONG.values(), ids=WRONG)
def test_one_line_names_the_key_and_the_fix(tmp_path: Path, text: str, told: list[str]) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        read(tmp_path, text)
    words = str(refused.value)
    assert words.startswith("cannot use the configuration: ")
    assert "\n" not in words
    for part in told:
        assert part in words


def test_a_profile_says_what_its_model_does_not(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "[profiles.small]\nbatch = 64\nubatch = 32\nmlock = true\n"
        "[profiles.p106-100]\nbatch = 7\n"
        "[models.a]\npath = 'a'\nprofile = 'small'\nubatch = 16\n"
        "[models.b]\npath = 'b'\nprofile = 'p106-100'\n"
        "[models.c]\npath = 'c'\nprofile = 'p106-100-embedding'\n",
    )
    assert found["a"].options == ModelOptions(batch=64, ubatch=16, mlock=True)
    assert found["a"].profile == "small"
    assert found["b"].options == ModelOptions(batch=7), "the configuration's own comes first"
    assert found["c"].options.embedding
    assert found["c"].options.cache_type_k == "q8_0"


def test_labels_are_taken_as_they_are_written(tmp_path: Path) -> None:
    found = read(tmp_path, "[models.a]\npath = 'a'\nlabels = { service = 'voice', b = '' }\n")
    assert found["a"].labels == (("b", ""), ("service", "voice"))


def test_a_command_is_taken_as_it_is_written(tmp_path: Path) -> None:
    made = read(
        tmp_path,
        f"{FULL}host_bytes = '1MiB'\nkind = 'chat'\nserved_name = 'w-1'\nmetrics = '/m'\n"
        "environment = { A = 'x' }\ncounters = { running = 'jobs' }\n",
    )["w"]
    assert made.engine is EngineKind.COMMAND
    assert made.command is not None
    assert made.command.argv == ("/opt/w", "${PORT}")
    assert made.command.environment == (("A", "x"),)
    assert made.command.counters == (("running", "jobs"),)
    assert (made.command.device_bytes, made.command.host_bytes) == (2**30, 2**20)


POWERFUL = {
    "argv": FULL,
    "extra_args": "[models.a]\npath = 'a'\nextra_args = ['--jinja']\n",
    "environment": "[models.a]\nenvironment = { A = 'x' }\n",
    "models.a.sleep_mode": "[models.a]\npath = 'a'\nsleep_mode = true\n",
    "profiles.a.sleep_mode": "[profiles.a]\nsleep_mode = true\n",
}


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
@pytest.mark.parametrize(("key", "text"), POWERFUL.items())
def test_what_is_executed_is_taken_from_no_file_that_others_write(
    tmp_path: Path, key: str, text: str, mode: int
) -> None:
    with pytest.raises(ConfigInvalid, match=rf"{key} from .*others may write to it: chmod go-w"):
        read(tmp_path, text, mode)
    assert read(tmp_path, "[models.a]\npath = 'a'\n", mode), "all else is, as ever"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_nor_from_another_users_file_wherever_it_lies(tmp_path: Path) -> None:
    part = tmp_path / "conf.d" / "x.toml"
    part.parent.mkdir()
    part.write_text(FULL)
    assert "w" in read(tmp_path, "")
    os.chown(part, 65534, -1)
    with pytest.raises(ConfigInvalid, match=r"models\.w\.argv from .*x\.toml: it belongs to"):
        read(tmp_path, "")


def test_the_environment_holds_no_command(tmp_path: Path) -> None:
    for name, value in (("ARGV", "/opt/w"), ("EXTRA_ARGS", "--jinja")):
        with pytest.raises(ConfigInvalid, match=r"models\.a"):
            config.load(None, {"GPUD_MODELS__A__PATH": "a", f"GPUD_MODELS__A__{name}": value})


def test_a_check_looks_at_the_programs_and_a_reading_does_not(tmp_path: Path) -> None:
    """A daemon starts without the program of one model; `gpud config check` tells of it."""
    path = tmp_path / "gpud.toml"
    path.write_text(FULL.replace("/opt/w", f"{tmp_path}/none"))
    path.chmod(0o644)
    told = {
        command: subprocess.run(
            [sys.executable, "-m", "gpud", "config", command, "--config", str(path)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        for command in ("show", "check")
    }
    assert told["show"].returncode == 0
    assert told["check"].returncode == 2
    assert told["check"].stderr == (
        f"gpud: cannot use the configuration: models.w.argv: cannot run {tmp_path}/none: "
        "no such file or directory\n"
    )
