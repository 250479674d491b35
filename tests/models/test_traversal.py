"""Ways out of the model roots, each tried on a real tree with something to steal beside it."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpud.models.artifact import ArtifactRefused, open_artifact
from gpud.models.beneath import Opener, by_kernel, by_walk
from tests.models.opened import open_under
from tests.proof.record import record

SECRET = b"a secret that lies beside the roots"
LEAVES, NO_NAME, KIND = "leaves the model roots", "not a file name", "is not a regular file but"


def link(name: str, target: str) -> Callable[[Path], None]:
    return lambda root: (root / name).symlink_to(target)


def chain(root: Path) -> None:
    (root / "first").symlink_to("second")
    (root / "second").symlink_to("sub/third")
    (root / "sub" / "third").symlink_to("../../outside/secret.gguf")


def device(root: Path) -> None:
    os.mknod(root / "null.gguf", stat.S_IFCHR | 0o600, os.makedev(1, 3))


def nothing(_root: Path) -> None:
    """The tree as it is."""


# The path that is asked for ({root}, {outside}: absolute), what is laid first, what is said.
ATTEMPTS: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "up": ("../outside/secret.gguf", nothing, LEAVES),
    "up from below": ("sub/../../outside/secret.gguf", nothing, LEAVES),
    "up within the root": ("sub/../a.gguf", nothing, LEAVES),
    "absolute outside": ("{outside}/secret.gguf", nothing, LEAVES),
    "absolute with up": ("{root}/../outside/secret.gguf", nothing, LEAVES),
    "a root's name as a prefix": ("{root}-other/secret.gguf", nothing, LEAVES),
    "two slashes": ("//etc/passwd", nothing, NO_NAME),
    "NUL": ("a.gguf\0/../../outside/secret.gguf", nothing, NO_NAME),
    "newline": ("a.gguf\n--host", nothing, NO_NAME),
    "home": ("~/secret.gguf", nothing, NO_NAME),
    "percent": ("%2e%2e/outside/secret.gguf", nothing, NO_NAME),
    "backslash": ("..\\outside\\secret.gguf", nothing, NO_NAME),
    "a flag": ("--api-key=x", nothing, NO_NAME),
    "the process's own folder": ("/proc/self/cwd/a.gguf", nothing, LEAVES),
    "standard input": ("/dev/stdin", nothing, LEAVES),
    "a link out": ("out.gguf", link("out.gguf", "../outside/secret.gguf"), LEAVES),
    "an absolute link out": ("etc.gguf", link("etc.gguf", "/etc/passwd"), LEAVES),
    "a linked folder out": ("folder/secret.gguf", link("folder", "../outside"), LEAVES),
    "a link up, and down again": ("up/outside/secret.gguf", link("up", ".."), LEAVES),
    "a chain of links": ("first", chain, LEAVES),
    "a link through /proc": ("proc/etc/passwd", link("proc", "/proc/self/root"), LEAVES),
    "a link to itself": ("loop", link("loop", "loop"), "cannot be opened"),
    "a fifo": ("fifo.gguf", lambda root: os.mkfifo(root / "fifo.gguf"), f"{KIND} a fifo"),
    "a folder": ("sub", nothing, f"{KIND} a directory"),
    "the root itself": ("{root}", nothing, LEAVES),
    "a device": ("null.gguf", device, f"{KIND} a device"),
    "a name too long": ("a" * 256, nothing, NO_NAME),
    "a path too long": ("/".join(["a" * 250] * 17), nothing, "is not a path of 1 to"),
    "here": ("sub/./b.gguf", nothing, LEAVES),
    "slash at the end": ("a.gguf/", nothing, NO_NAME),
    "empty": ("", nothing, "is not a path of 1 to"),
    "half a character": ("\udce9.gguf", nothing, NO_NAME),
    "an escape": ("\x1b[2Ja.gguf", nothing, NO_NAME),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    (root / "sub").mkdir(parents=True)
    (root / "a.gguf").write_bytes(b"a model")
    (root / "sub" / "b.gguf").write_bytes(b"another")
    for outside in (tmp_path / "outside", tmp_path / "models-other"):
        outside.mkdir()
        (outside / "secret.gguf").write_bytes(SECRET)
    return root


@pytest.fixture(scope="module")
def tried() -> Iterator[list[bool]]:
    """Whether each attempt that was made was refused."""
    made: list[bool] = []
    began = time.monotonic()
    yield made
    record("R13 ways out of the model roots, two openers: attempts", 2 * len(ATTEMPTS), len(made),
           made.count(False), time.monotonic() - began)  # fmt: skip


@pytest.mark.proof
@pytest.mark.parametrize("opener", [by_kernel, by_walk])
@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_no_way_leads_out(attempt: str, opener: Opener, root: Path, tried: list[bool]) -> None:
    path, lay, said = ATTEMPTS[attempt]
    if lay is device and os.geteuid() != 0:
        pytest.skip("only root makes devices")
    lay(root)
    asked = path.replace("{root}", str(root)).replace("{outside}", str(root.parent / "outside"))
    tried.append(False)
    with pytest.raises(ArtifactRefused) as refused, open_artifact(asked, [root], opener):
        pytest.fail("it was opened")
    tried[-1] = True
    assert said in str(refused.value)
    assert "secret that" not in str(refused.value)
    assert open_under(root.parent) == []


@pytest.mark.parametrize("opener", [by_kernel, by_walk])
@pytest.mark.parametrize(
    ("path", "lay"),
    [
        ("a.gguf", nothing),
        ("{root}/sub/b.gguf", nothing),
        ("link.gguf", link("link.gguf", "sub/b.gguf")),
        ("sub/link.gguf", link("sub/link.gguf", "../a.gguf")),
        ("folder/b.gguf", link("folder", "sub")),
        ("round.gguf", link("round.gguf", "../models/a.gguf")),
    ],
)
def test_what_stays_within_is_opened(
    path: str, lay: Callable[[Path], None], opener: Opener, root: Path
) -> None:
    lay(root)
    with open_artifact(path.replace("{root}", str(root)), [root], opener) as (artifact, file):
        assert file.read() in {b"a model", b"another"}
        assert artifact.path in {root / "a.gguf", root / "sub" / "b.gguf"}
