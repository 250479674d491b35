"""The folder of a CA is another user's, who may rename what is in it at any moment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpud.access.authority.issuing import IssueRefused
from tests.access.test_authority import make, refused


class Swapping:
    """Puts a link to a folder of root's in the place of whatever is made with a name."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.target = folder.parent / "roots"
        self.target.mkdir(mode=0o755)
        self._mkdir = os.mkdir

    def __call__(self, path: object, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        self._mkdir(path, mode, dir_fd=dir_fd)  # type: ignore[arg-type]
        name = os.path.basename(os.fspath(path))  # type: ignore[call-overload]
        if name.startswith(self.name):
            (self.folder / name).rename(self.folder / "aside")
            (self.folder / name).symlink_to(self.target)


@pytest.mark.parametrize("name", ["clients", "servers", ".new-"])
def test_a_folder_that_becomes_a_link_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / "tls"
    folder.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(folder, 12345, 12345)
    swapping = Swapping(folder, name)
    owner = swapping.target.stat().st_uid
    monkeypatch.setattr(os, "mkdir", swapping)
    with pytest.raises(IssueRefused):
        make(folder, node="gpu2")
    assert (folder / "aside").exists()
    assert list(swapping.target.iterdir()) == []
    assert swapping.target.stat().st_uid == owner


def test_a_link_in_the_place_of_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "roots"
    target.mkdir()
    folder = tmp_path / "tls"
    folder.mkdir(mode=0o700)
    (folder / "clients").symlink_to(target)
    assert f"{folder}/clients: it is a link" in refused(folder)
    assert list(target.iterdir()) == []


def test_the_ca_of_another_folder_signs_nothing_here(tmp_path: Path) -> None:
    """Root can read it; whoever put links to it here may not."""
    make(tmp_path / "roots")
    folder = tmp_path / "tls"
    folder.mkdir(mode=0o700)
    for name in ("ca.pem", "ca-key.pem"):
        (folder / name).symlink_to(tmp_path / "roots" / name)
    assert "cannot read the CA's certificate" in refused(folder)
