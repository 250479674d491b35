"""The file of contexts: its text, and what becomes of it when it is wrong or shared."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuctl.access.context import Context
from gpuctl.access.context_text import Contexts, check_name, parsed, written
from gpuctl.access.contexts import change_contexts, contexts_path, read_contexts
from gpuctl.failures import Failure
from tests.gpuctl.conftest import Gpuctl

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True)
# Whatever a path can hold that a command line can: text, without lone surrogates and NUL.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)


@st.composite
def some_contexts(draw: st.DrawFn) -> Contexts:
    made = {
        name: Context(
            name=name, address=draw(TEXTS.filter(bool)), ca=draw(TEXTS), cert=draw(TEXTS),
            key=draw(TEXTS), token_file=draw(TEXTS), server_name=draw(TEXTS),
        )
        for name in draw(st.lists(NAMES, unique=True, max_size=4))
    }  # fmt: skip
    return Contexts(current=draw(TEXTS), by_name=made)


@given(some_contexts())
def test_what_is_written_is_read_back(contexts: Contexts) -> None:
    assert parsed(written(contexts)) == contexts


@pytest.mark.parametrize("name", ["", "-a", ".a", "a b", "a/b", "a\n", "é", "a" * 64])
def test_bad_names(name: str) -> None:
    with pytest.raises(ValueError, match="is no name for a context"):
        check_name(name)


def write(text: str | bytes) -> Path:
    path = Path(contexts_path())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("current = ", "Invalid value"),
        ("current = 1", "`current` is no text"),
        ("curent = 'a'", "no setting 'curent'"),
        ("contexts = 1", "`contexts` is no table"),
        ("contexts.a = 1", "`contexts.a` is no table"),
        ("[contexts.a]\n", "has no address"),
        ("[contexts.a]\naddress = 1", "`address` of [contexts.a] is no text"),
        ("[contexts.a]\naddress = 'h:1'\ntoken-file = 'x'", "no setting 'token-file'"),
        ("[contexts.'a b']\naddress = 'h:1'", "is no name"),
        (b"\xff\xfe", "utf-8"),
        ("#" * 70_000, "longer than"),
        ("a = " + "[" * 5000, "deep"),
    ],
)
def test_a_corrupt_file_is_one_clear_line(text: str | bytes, why: str, gpuctl: Gpuctl) -> None:
    path = write(text)
    ended = gpuctl("--context a devices")
    assert ended.code == 2
    assert ended.err.startswith(f"gpuctl: cannot read {path}: ")
    assert why in ended.err
    assert "mend it, or remove it" in ended.err
    assert len(ended.err.splitlines()) == 1
    # An address of its own needs no file.
    assert gpuctl("devices -o name").code == 0


def test_a_file_that_may_not_be_read(gpuctl: Gpuctl) -> None:
    path = Path(contexts_path())
    path.mkdir(parents=True)  # to root every file is open, but no folder is one
    ended = gpuctl("context list")
    assert ended.code == 2
    assert f"cannot read {path}: Is a directory" in ended.err


def test_the_file_and_its_folder_are_the_owner_s_alone(gpuctl: Gpuctl) -> None:
    assert gpuctl("context add rig --address /run/g.sock").code == 0
    path = Path(contexts_path())
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(path.parent) == ["contexts.toml"]


def test_a_link_stays_a_link(gpuctl: Gpuctl, tmp_path: Path) -> None:
    path = write("")
    real = tmp_path / "dotfiles.toml"
    path.rename(real)
    path.symlink_to(real)
    gpuctl("context add rig --address /run/g.sock")
    assert path.is_symlink()
    assert "rig" in real.read_text()


def test_what_fails_leaves_the_file_whole(tmp_path: Path) -> None:
    path = write('current = "a"\n[contexts.a]\naddress = "h:1"\n')
    before = path.read_bytes()

    def fails(contexts: Contexts) -> Contexts:
        raise Failure(message="no")

    with pytest.raises(Failure, match="no"):
        change_contexts(fails)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["contexts.toml"]


def test_two_at_once_lose_nothing() -> None:
    def add(name: str) -> None:
        made = Context(name=name, address="h:1")
        change_contexts(lambda c: Contexts(by_name={**c.by_name, name: made}))

    threads = [threading.Thread(target=add, args=(f"n{i}",)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read_contexts().by_name) == sorted(f"n{i}" for i in range(12))


def test_a_relative_config_home_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "here")
    monkeypatch.setenv("HOME", "/srv/ada")
    assert contexts_path() == "/srv/ada/.config/gpuctl/contexts.toml"


def test_without_a_home_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, gpuctl: Gpuctl) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "")
    monkeypatch.setenv("HOME", "relative")
    ended = gpuctl("context add rig --address h:1")
    assert ended.code == 2
    assert "set HOME or XDG_CONFIG_HOME" in ended.err
    assert gpuctl("context list").code == 0
