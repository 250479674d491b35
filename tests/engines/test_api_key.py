"""The key that an engine asks of its callers: which files are taken, and what shows of it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from gpud.engines.api_key import MAX_FILE_BYTES, ApiKey, KeyRefused, read_key, sealed

KEY = "canary-0123456789abcdef"


def written(path: Path, content: str | bytes, mode: int = 0o600) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize("content", [KEY, f"{KEY}\n", f"# of voice\n\n{KEY}\nanother-key-of-it\n"])
@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640])
def test_the_first_key_of_a_file_is_taken(content: str, mode: int, tmp_path: Path) -> None:
    assert read_key(written(tmp_path / "key", content, mode)).reveal() == KEY


@pytest.mark.parametrize(
    ("content", "mode", "problem"),
    [
        (KEY, 0o644, "is open to others: set its mode to 0600 or 0640"),
        (KEY, 0o602, "is open to others"),
        (KEY, 0o660, "is open to others"),
        ("", 0o600, "holds no key"),
        ("# " + KEY, 0o600, "holds no key"),
        ("short", 0o600, "holds no key"),
        (KEY + " and more", 0o600, "holds no key"),
        (KEY + "é", 0o600, "holds no key"),
        (KEY + "\0", 0o600, "holds no key"),
        ("#" * MAX_FILE_BYTES + "\n" + KEY, 0o600, "is larger than 4096 bytes"),
    ],
)
def test_a_file_that_will_not_do_says_why_and_not_what(
    content: str, mode: int, problem: str, tmp_path: Path
) -> None:
    with pytest.raises(KeyRefused, match=problem) as refused:
        read_key(written(tmp_path / "key", content, mode))
    assert "canary" not in str(refused.value)
    assert "short" not in str(refused.value)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/null")):
        with pytest.raises(KeyRefused, match="is not a regular file"):
            read_key(str(path))
    with pytest.raises(KeyRefused, match="no such file"):
        read_key(str(tmp_path / "absent"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_another_users_file_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "key", KEY)
    os.chown(path, 65534, -1)
    with pytest.raises(KeyRefused, match="belongs to another user"):
        read_key(path)


def test_a_key_shows_nowhere() -> None:
    key = ApiKey(KEY)
    assert "canary" not in f"{key} {key!r} {[key]}"


def test_what_an_engine_inherits_can_be_read_again_and_not_be_changed() -> None:
    with sealed(ApiKey(KEY)) as file:
        with open(f"/proc/self/fd/{file.fileno()}", "rb") as again:
            assert again.read() == f"{KEY}\n{KEY}\n".encode()
        with pytest.raises(PermissionError):
            os.pwrite(file.fileno(), b"x", 0)
        with pytest.raises(PermissionError):
            fcntl.fcntl(file.fileno(), fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL)
