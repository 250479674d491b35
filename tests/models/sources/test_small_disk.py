"""A file system that is really full while a download comes: it gets its bytes back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpud.units import MIB
from tests.models.sources.origin import Exchange, Origin, serving

DISK_BYTES = 2 * MIB
# Downloads without looking at the room first, tells how that ended and what is left.
CHILD = """
import os, sys
from pathlib import Path
from gpud.clock import SystemClock
from gpud.models.sources.jobs import Control
from gpud.models.sources.refusals import DiskInsufficient
from gpud.models.sources.transfer.download import Terms, Wanted, download
from gpud.models.sources.transfer.room import Room

url, sha256, folder = sys.argv[1:]
terms = Terms(room=Room(0), max_bytes=2**30)
wanted = Wanted(url=url, place=Path(folder) / "models" / "x.gguf", sha256=sha256)
brought = []
try:
    download(wanted, terms, Control(SystemClock(), lambda _: None), lambda n, _: brought.append(n))
except DiskInsufficient as error:
    print(error)
status = os.statvfs(folder)
print(max(brought), os.listdir(Path(folder) / "models"), status.f_bavail * status.f_frsize)
"""


def in_small_disk(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run with a file system of its own at the folder."""
    own = ("unshare", "-m") if os.geteuid() == 0 else ("unshare", "-Urm")
    mount = f'mount -t tmpfs -o size={DISK_BYTES} small "$0" && exec "$@"'
    return subprocess.run(
        [*own, "sh", "-c", mount, str(folder), *command],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def unmeasured(each: Exchange) -> None:
    """A body whose length is not told, so that nobody can look at the room before."""
    each.begin(200, Transfer_Encoding="chunked")
    content = each.origin.content
    for at in range(0, len(content), 65536):
        piece = content[at : at + 65536]
        each.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
    each.wfile.write(b"0\r\n\r\n")


@pytest.fixture
def origin() -> Iterator[Origin]:
    with serving(Origin(b"\1" * (3 * DISK_BYTES))) as made:
        yield made


@pytest.mark.parametrize("told", [True, False], ids=["its length told", "its length not told"])
def test_what_has_no_room_is_refused_and_leaves_none_taken(
    origin: Origin, tmp_path: Path, told: bool
) -> None:
    if in_small_disk(tmp_path, "true").returncode != 0:
        pytest.skip("nobody may mount a file system of his own here")
    origin.always = None if told else unmeasured
    brought = "max(brought)" if not told else "0"
    code = CHILD.replace("max(brought)", brought)
    ended = in_small_disk(
        tmp_path, sys.executable, "-c", code, origin.url, origin.sha256, str(tmp_path)
    )
    assert ended.returncode == 0, ended.stderr
    refusal, state = ended.stdout.splitlines()
    if told:
        assert "6 MiB more are needed, 2 MiB are free" in refusal
        assert state == f"0 [] {DISK_BYTES}"
    else:
        assert "0 B are free" in refusal
        count, _, rest = state.partition(" ")
        assert int(count) > MIB
        assert rest == f"[] {DISK_BYTES}"
