"""The command line as such: where options may stand, what it refuses, what it imports."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import yaml

from gpuctl.commands.tree import gpuctl as tree
from gpud.rpc.output import MAX_LINES
from tests.fakes.daemon import FakeDaemon
from tests.gpuctl.conftest import Gpuctl

COMMANDS = [
    "status", "devices", "top", "watch", "reserve", "renew", "release", "reservations", "explain",
    "run", "models",
    "estimate", "load", "unload", "reset", "sleep", "wake", "orphans", "instances", "logs",
    "bench", "show", "events", "alerts", "forecast", "history", "cordon", "uncordon", "drain",
    "resume", "reload", "context", "version",
]  # fmt: skip


def test_the_commands_are_those_of_the_contract() -> None:
    assert tree.list_commands(None) == COMMANDS  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [*COMMANDS, "ps"])
def test_each_command_explains_itself(name: str, gpuctl: Gpuctl) -> None:
    ended = gpuctl(name, "--help")
    assert ended.code == 0
    assert "--address" in ended.out
    assert ended.err == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_no_help_tells_what_only_the_wire_limits(name: str, gpuctl: Gpuctl) -> None:
    text = "".join(gpuctl(name, "--help").out.split())
    assert not re.search(r"[0-9]{6}", text)


def test_a_limit_that_is_gpud_s_own_is_told(gpuctl: Gpuctl) -> None:
    assert f"1<=x<={MAX_LINES}" in gpuctl("logs", "--help").out


def test_bare_gpuctl_lists_the_commands(gpuctl: Gpuctl) -> None:
    ended = gpuctl()
    assert ended.code == 0
    assert all(name in ended.out for name in COMMANDS)


@pytest.mark.parametrize(
    "arguments", ["devices -o json", "-o json devices", "-o yaml devices -o json"]
)
def test_global_options_stand_before_or_after_the_command(arguments: str, gpuctl: Gpuctl) -> None:
    ended = gpuctl(arguments)
    assert [d["alias"] for d in json.loads(ended.out)["devices"]] == ["gpu0", "gpu1", "host"]


def test_the_forms_of_a_list(gpuctl: Gpuctl) -> None:
    assert gpuctl("devices", "-o", "name").out.splitlines() == [
        "devices/SIM-0000", "devices/SIM-0001", "devices/host"
    ]  # fmt: skip
    lines = gpuctl("devices", "-o", "jsonl").out.splitlines()
    assert [json.loads(line)["alias"] for line in lines] == ["gpu0", "gpu1", "host"]
    wrapped = json.loads(gpuctl("devices", "-o", "json").out)
    assert yaml.safe_load(gpuctl("devices", "-o", "yaml").out) == wrapped
    assert list(wrapped) == ["devices"]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ("reserve", "--vram"),
        ("reserve --vram 4Q", "8GiB"),
        ("reserve --vram 4G --ttl soon", "30s"),
        ("reserve --vram 4G --label nokey", "team=search"),
        ("reserve --vram 4G --count 0", "within 1 …"),
        ("renew r-1 --generation 0", "within 1 …"),
        ("load tiny --parallel 3000000000", "within"),
        ("logs tiny --lines 10001", "1<=x<=10000"),
        ("reserve --vram 4G --kind tpu", "gpu"),
        ("reserve --vram 4G extra", "extra"),
        ("reserve --vrma 4G", "--vram"),
        ("devices -o csv", "jsonl"),
        ("devices --timeout 5", "30s"),
        ("load", "MODEL"),
        ("load tiny --context-length many", "--context-length"),
        ("load tiny --flash-attention maybe", "auto"),
        ("release", "RESERVATION"),
        ("release devices/x", "reservations"),
        ("logs devices/x", "instances"),
        ("show pods/x", "devices"),
        ("events --since yesterday", "10m"),
        ("watch --count none", "--count"),
        ("status -o name", "json"),
        ("resreve --vram 4G", "reserve"),
        ("reserve --vram 4G --pack --spread", "choose one"),
        ("reserve --vram 4G --placement pack --spread", "choose one"),
        ("reserve --vram 4G --require-driver", "--exclusive"),
        ("reserve --vram 4G --priority urgent", "interactive"),
        ("reserve --vram=-4G", "8GiB"),
        ("reserve --vram 4G --wait soon", "30s"),
        ("reserve --vram 4G --wait=-5s", "30s"),
        ("reserve --vram 4G --ram lots", "8GiB"),
        ("reserve --vram 4G --numa-node -1", "within 0 …"),
        ("reserve --vram 4G --alternative 2x", "2x12GiB@gpu0,gpu1"),
        ("reserve --vram 4G --alternative 0x4G", "2x12GiB@gpu0,gpu1"),
        ("reserve --vram 4G --alternative twox4G", "2x12GiB@gpu0,gpu1"),
        ("reserve --vram 4G --alternative 4G@", "2x12GiB@gpu0,gpu1"),
        ("reserve --vram 4G --alternative 4G@gpu0,", "empty device"),
        ("explain", "--vram"),
        ("explain --vram 4G --count 0", "within 1 …"),
        ("cordon", "DEVICE"),
        ("cordon models/x", "gpu0"),
        ("uncordon reservations/x", "gpu0"),
        ("drain --deadline 30s", "--stop-instances"),
        ("drain --wait soon", "30s"),
        ("resume now", "now"),
        ("load tiny --reservation r-1 --exclusive", "leave out"),
        ("load tiny --reservation devices/x", "reservations"),
        ("run -- sleep 1", "--vram"),
        ("run --vram 4G", "behind --"),
        ("run --vram 4G sleep 1", "behind --"),
        ("run --vram 4G --", "no command"),
        ("run --vram 4G sleep -- 1", "sleep"),
        ("run --vram 4G --count 0 -- true", "within 1 …"),
        ("run --reservation r-1 --vram 4G -- true", "leave out --vram"),
        ("run --reservation r-1 --device gpu0 --exclusive -- true", "--device, --exclusive"),
        ("run --reservation devices/x -- true", "reservations"),
        ("run --vram 4G --on-loss cry -- true", "terminate"),
        ("run --vram 4G --wait never -- true", "30s"),
    ],
)
def test_a_wrong_command_line_exits_2_with_a_hint(
    arguments: str, hint: str, gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    ended = gpuctl(arguments)
    assert ended.code == 2
    assert hint in ended.err
    assert "Traceback" not in ended.err
    assert ended.out == ""
    assert not daemon.requests


def test_a_usage_error_names_the_help_to_read(gpuctl: Gpuctl) -> None:
    assert "`gpuctl reserve --help`" in gpuctl("reserve").err


def test_status_imports_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from gpuctl.main import run\n"
        "run(['status'])\n"
        "heavy = {'click', 'rich', 'yaml', 'json', 'google.rpc', 'google.protobuf.json_format'}\n"
        "print(*sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
        "print(sorted(m for m in sys.modules if m.startswith('gpud.') and 'v1' not in m))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={"GPUCTL_ADDRESS": "/nowhere.sock"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ended.stderr.splitlines()[-1] == ""
    assert ended.stdout == "[]\n"


def test_color_only_on_a_terminal(gpuctl: Gpuctl) -> None:
    assert "\x1b" not in gpuctl("status").out
    assert "\x1b" not in gpuctl("devices", "-o", "wide").out
