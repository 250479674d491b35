"""Finding a file without being led out of the roots."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpud.models.artifact import Artifact, ArtifactRefused, open_artifact


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "a.gguf").write_bytes(b"a model")
    (root / "sub" / "b.gguf").write_bytes(b"another")
    (tmp_path / "outside.gguf").write_bytes(b"a secret")
    return root


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Whatever is opened is closed again."""
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


def found(path: str, *roots: Path) -> Artifact:
    with open_artifact(path, roots) as (artifact, file):
        assert len(file.read()) == artifact.size_bytes
        return artifact


def refusal(path: str, *roots: Path) -> str:
    with pytest.raises(ArtifactRefused) as refused, open_artifact(path, roots):
        pass
    return str(refused.value)


@pytest.mark.usefixtures("descriptors")
def test_a_relative_path_is_looked_up_under_each_root(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    artifact = found("sub/b.gguf", other, root)
    status = (root / "sub" / "b.gguf").stat()
    assert artifact == Artifact(
        path=root / "sub" / "b.gguf",
        device=status.st_dev,
        inode=status.st_ino,
        size_bytes=7,
        mtime_ns=status.st_mtime_ns,
    )


def test_an_absolute_path_must_lie_under_a_root(root: Path, tmp_path: Path) -> None:
    assert found(str(root / "a.gguf"), root).size_bytes == 7
    assert "leaves the model roots" in refusal(str(tmp_path / "outside.gguf"), root)
    assert "leaves the model roots" in refusal("/etc/passwd", root)


@pytest.mark.usefixtures("descriptors")
def test_links_are_followed_as_far_as_the_roots_reach(root: Path, tmp_path: Path) -> None:
    blobs = root / "blobs"
    blobs.mkdir()
    (blobs / "0123").write_bytes(b"a blob")
    (root / "sub" / "relative.gguf").symlink_to("../blobs/0123")
    (root / "absolute.gguf").symlink_to(blobs / "0123")
    (root / "folder").symlink_to(blobs)
    (tmp_path / "alias").symlink_to(root)
    for path in ("sub/relative.gguf", "absolute.gguf", "folder/0123"):
        assert found(path, root).path == blobs / "0123"
    assert found("absolute.gguf", tmp_path / "alias").path == blobs / "0123"


def test_a_link_from_one_root_to_another_is_followed(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "link.gguf").symlink_to(root / "a.gguf")
    assert found("link.gguf", other, root).path == root / "a.gguf"
    assert "leaves the model roots" in refusal("link.gguf", other)


@pytest.mark.usefixtures("descriptors")
def test_links_out_of_the_roots_are_refused(root: Path, tmp_path: Path) -> None:
    (root / "out.gguf").symlink_to(tmp_path / "outside.gguf")
    (root / "up").symlink_to("..")
    (root / "proc").symlink_to("/proc/self/root")
    for path in ("out.gguf", "up/outside.gguf", f"proc{tmp_path}/outside.gguf"):
        assert "leaves the model roots" in refusal(path, root)


@pytest.mark.usefixtures("descriptors")
def test_a_link_that_appears_after_the_look_up_is_not_followed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up = os.path.realpath

    def swap_then(path: str) -> str:
        answer = look_up(path)
        if answer == str(root / "a.gguf"):
            (root / "a.gguf").unlink()
            (root / "a.gguf").symlink_to(tmp_path / "outside.gguf")
        return answer

    monkeypatch.setattr(os.path, "realpath", swap_then)
    assert "cannot be opened" in refusal("a.gguf", root)


@pytest.mark.parametrize(
    "path",
    ["", "a\0.gguf", "../outside.gguf", "sub/../../outside.gguf", "./a.gguf", "sub//b.gguf", "-m",
     "a\n.gguf", "\x1b[31m.gguf", "sub/", "a" * 2000, "\udcff.gguf", "//a.gguf"],
)  # fmt: skip
def test_a_path_that_is_none_is_refused_before_the_disk_is_asked(path: str, root: Path) -> None:
    assert refusal(path, root)


@pytest.mark.usefixtures("descriptors")
def test_what_is_not_a_regular_file_is_refused_at_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(root / "fifo.gguf")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(root)  # a socket's name has at most 107 bytes
        listener.bind("socket.gguf")
        kinds = {"fifo.gguf": "a fifo", "sub": "a directory"}
        for path, kind in kinds.items():
            assert refusal(path, root) == f"is not a regular file but {kind}"
        assert "cannot be opened" in refusal("socket.gguf", root)


def test_missing_empty_unreadable_and_looping_files_are_told_apart(root: Path) -> None:
    (root / "empty.gguf").touch()
    (root / "loop.gguf").symlink_to("loop.gguf")
    (root / "dangling.gguf").symlink_to("nowhere.gguf")
    assert "is missing" in refusal("absent.gguf", root)
    assert "is missing" in refusal("dangling.gguf", root)
    assert refusal("empty.gguf", root) == "is empty"
    assert "cannot be opened" in refusal("loop.gguf", root)
    assert "Not a directory" in refusal("a.gguf/b.gguf", root)
    assert "no model roots" in refusal("a.gguf")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_says_permission(root: Path) -> None:
    (root / "a.gguf").chmod(0)
    assert "permission denied" in refusal("a.gguf", root)
