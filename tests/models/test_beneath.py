"""Kernels and containers without openat2, made by a filter of system calls in a process apart."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Refuses system call 437 with the error given, then opens what it is told beneath the root.
PROGRAM = """
import ctypes, struct, sys
from pathlib import Path

def filtered(number):
    def step(code, value, if_true=0, if_false=0):
        return struct.pack("HBBI", code, if_true, if_false, value)
    program = b"".join([
        step(0x20, 0),                     # load the call's number
        step(0x15, 437, 0, 1),
        step(0x06, 0x00050000 | number),   # refused, with this error
        step(0x06, 0x7FFF0000),            # let through
    ])
    held = ctypes.create_string_buffer(program)
    told = struct.pack("HxxxxxxP", 4, ctypes.addressof(held))
    libc = ctypes.CDLL(None, use_errno=True)
    none = ctypes.c_ulong(0)
    assert libc.prctl(38, ctypes.c_ulong(1), none, none, none) == 0
    assert libc.prctl(22, ctypes.c_ulong(2), told, none, none) == 0

filtered(int(sys.argv[1]))
from gpud.models.artifact import ArtifactRefused, open_artifact
for name in sys.argv[3:]:
    try:
        with open_artifact(name, [Path(sys.argv[2])]) as (artifact, file):
            print(file.read().decode())
    except ArtifactRefused as refused:
        print(refused)
"""


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_links_are_checked_by_name_where_the_kernel_cannot_and_that_is_said_once(
    number: int, tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a.gguf").write_text("a model")
    (tmp_path / "models" / "in.gguf").symlink_to("a.gguf")
    (tmp_path / "models" / "out.gguf").symlink_to("../outside.gguf")
    (tmp_path / "outside.gguf").write_text("a secret")
    names = ("a.gguf", "in.gguf", "out.gguf")
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(number), str(tmp_path / "models"), *names],
        capture_output=True, check=True, cwd=ROOT, text=True, timeout=60,
    )  # fmt: skip
    told = [line for line in ended.stdout.splitlines() if "models.no_openat2" in line]
    said = [line for line in ended.stdout.splitlines() if "models.no_openat2" not in line]
    assert len(told) == 1
    assert os.strerror(number) in told[0]
    assert said == ["a model", "a model", f"leaves the model roots ({tmp_path / 'models'})"]
