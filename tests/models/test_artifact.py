"""Finding a file without being led out of the roots, as the kernel does it and the long way."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpud.models.artifact import Artifact, ArtifactRefused, check_path, open_artifact
from gpud.models.beneath import Opener, best_opener, by_kernel, by_walk
from tests.models.opened import open_under

Find = Callable[..., Artifact]
Refusal = Callable[..., str]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "a.gguf").write_bytes(b"a model")
    (root / "sub" / "b.gguf").write_bytes(b"another")
    (tmp_path / "outside.gguf").write_bytes(b"a secret")
    return root


@pytest.fixture
def descriptors(tmp_path: Path) -> Iterator[None]:
    """Whatever is opened is closed again."""
    yield
    assert open_under(tmp_path) == []


@pytest.fixture(params=[by_kernel, by_walk])
def opener(request: pytest.FixtureRequest) -> Opener:
    """Each way behaves alike. The kernel that tests run on has the first."""
    chosen: Opener = request.param
    return chosen


@pytest.fixture
def found(opener: Opener) -> Find:
    def find(path: str, *roots: Path) -> Artifact:
        with open_artifact(path, roots, opener) as (artifact, file):
            assert len(file.read()) == artifact.size_bytes
            return artifact

    return find


@pytest.fixture
def refusal(opener: Opener) -> Refusal:
    def refuse(path: str, *roots: Path) -> str:
        with pytest.raises(ArtifactRefused) as refused, open_artifact(path, roots, opener):
            pass
        return str(refused.value)

    return refuse


@pytest.mark.usefixtures("descriptors")
def test_a_relative_path_is_looked_up_under_each_root(
    root: Path, tmp_path: Path, found: Find
) -> None:
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
        ctime_ns=status.st_ctime_ns,
    )


def test_an_absolute_path_must_lie_under_a_root(
    root: Path, tmp_path: Path, found: Find, refusal: Refusal
) -> None:
    assert found(str(root / "a.gguf"), root).size_bytes == 7
    assert "leaves the model roots" in refusal(str(tmp_path / "outside.gguf"), root)
    assert "leaves the model roots" in refusal("/etc/passwd", root)


@pytest.mark.usefixtures("descriptors")
def test_links_are_followed_as_far_as_the_roots_reach(
    root: Path, tmp_path: Path, found: Find
) -> None:
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


def test_a_link_from_one_root_to_another_is_followed(
    root: Path, tmp_path: Path, found: Find, refusal: Refusal
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "link.gguf").symlink_to(root / "a.gguf")
    assert found("link.gguf", other, root).path == root / "a.gguf"
    assert "leaves the model roots" in refusal("link.gguf", other)


@pytest.mark.usefixtures("descriptors")
def test_links_out_of_the_roots_are_refused(root: Path, tmp_path: Path, refusal: Refusal) -> None:
    (root / "out.gguf").symlink_to(tmp_path / "outside.gguf")
    (root / "up").symlink_to("..")
    (root / "proc").symlink_to("/proc/self/root")
    for path in ("out.gguf", "up/outside.gguf", f"proc{tmp_path}/outside.gguf"):
        assert "leaves the model roots" in refusal(path, root)


@pytest.mark.usefixtures("descriptors")
def test_a_link_that_appears_after_the_look_up_is_not_followed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel cannot do both in one step."""
    look_up = os.path.realpath

    def swap_then(path: str) -> str:
        answer = look_up(path)
        if answer == str(root / "a.gguf"):
            (root / "a.gguf").unlink()
            (root / "a.gguf").symlink_to(tmp_path / "outside.gguf")
        return answer

    monkeypatch.setattr(os.path, "realpath", swap_then)
    with pytest.raises(ArtifactRefused, match="cannot be opened"):
        open_artifact("a.gguf", [root], by_walk).__enter__()


@pytest.mark.usefixtures("descriptors")
def test_links_of_the_kernel_itself_are_not_followed(root: Path, refusal: Refusal) -> None:
    """A folder of a running process within the roots would lead anywhere."""
    with (root.parent / "outside.gguf").open("rb") as file:
        magic = Path(f"/proc/self/fd/{file.fileno()}")
        assert magic.exists()
        (root / "magic.gguf").symlink_to(magic)
        assert "leaves the model roots" in refusal("magic.gguf", root)
        assert refusal(magic.name, Path("/proc/self/fd"))


def test_this_kernel_does_it_in_one_step() -> None:
    """Or the tests above tried the long way alone."""
    assert best_opener() is by_kernel


@pytest.mark.parametrize(
    "path",
    ["", "a\0.gguf", "../outside.gguf", "sub/../../outside.gguf", "./a.gguf", "sub//b.gguf", "-m",
     "a\n.gguf", "\x1b[31m.gguf", "sub/", "a" * 2000, "\udcff.gguf", "//a.gguf",
     "é" * 128, "/".join(["a" * 200] * 21)],
)  # fmt: skip
def test_a_path_that_is_none_is_refused_before_the_disk_is_asked(path: str) -> None:
    with pytest.raises(ArtifactRefused):
        check_path(path)


@pytest.mark.usefixtures("descriptors")
def test_what_is_not_a_regular_file_is_refused_at_once(
    root: Path, refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(root / "fifo.gguf")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(root)  # a socket's name has at most 107 bytes
        listener.bind("socket.gguf")
        kinds = {"fifo.gguf": "a fifo", "sub": "a directory", "socket.gguf": "a socket"}
        for path, kind in kinds.items():
            assert refusal(path, root) == f"is not a regular file but {kind}"


def test_missing_empty_unreadable_and_looping_files_are_told_apart(
    root: Path, refusal: Refusal
) -> None:
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
def test_an_unreadable_file_says_permission(root: Path, refusal: Refusal) -> None:
    (root / "a.gguf").chmod(0)
    assert "permission denied" in refusal("a.gguf", root)
