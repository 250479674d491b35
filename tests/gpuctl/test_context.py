"""`gpuctl context`: adding, listing, choosing; and which gpud a command speaks to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gpuctl.access.choosing import chosen
from tests.fakes.daemon import FakeDaemon
from tests.gpuctl.access.certificates import COORDINATOR, issue
from tests.gpuctl.conftest import Gpuctl

Golden = Callable[[str, str], None]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with ca.pem, client.pem and client.key, and what is wrong with others."""
    ca = issue()
    ca.write(tmp_path, "ca")
    client = issue(COORDINATOR, by=ca)
    client.write(tmp_path, "client")
    issue(by=ca, days=(-9, -2)).write(tmp_path, "expired")
    (tmp_path / "not.pem").write_text("hello")
    (tmp_path / "broken.pem").write_text(
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    )
    (tmp_path / "locked.key").write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n")
    token = "gpud_" + "aB3-_" * 8 + "xyz"
    texts = {"token": f"{token}\n", "two": f"{token} {token}", "empty": "", "short": token[:-1]}
    for name, text in {**texts, "hash": "e6bd" * 16}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    return tmp_path


def test_a_context_is_kept_used_shown_and_removed(
    files: Path, gpuctl: Gpuctl, golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    monkeypatch.delenv("GPUCTL_ADDRESS")
    tls = "--ca ca.pem --cert client.pem --key client.key --server-name rig"
    ended = gpuctl(f"context add rig --address 10.0.0.2:50551 {tls}")
    assert ended.code == 0
    assert ended.err == "gpuctl: `gpuctl context use rig` makes it the current one\n"
    assert (
        gpuctl("context add -o name here --address /srv/./g.sock --token-file token").out
        == "here\n"
    )
    assert gpuctl("context add plain --address localhost:1 --use").err == ""
    golden("context_list", gpuctl("context list").out)
    assert gpuctl("context use rig").out.splitlines()[1].startswith("*        rig")
    golden("context_show", gpuctl("context show").out.replace(str(files), "/files"))
    listed = json.loads(gpuctl("context list -o json").out)["contexts"]
    assert listed[0] == {
        "name": "rig", "current": True, "address": "10.0.0.2:50551",
        "ca": f"{files}/ca.pem", "cert": f"{files}/client.pem", "key": f"{files}/client.key",
        "server_name": "rig",
    }  # fmt: skip
    assert listed[1]["address"] == "unix:///srv/g.sock"
    assert gpuctl("context remove rig").code == 0
    assert (files / "client.key").exists()
    assert gpuctl("context list -o name").out == "here\nplain\n"
    assert gpuctl("context show").code == 2  # the current one was removed


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("--address h:1 --cert client.pem --key client.key", "--ca is missing"),
        ("--address h:1 --ca ca.pem --cert client.pem", "belong together"),
        ("--address h:1 --ca ca.pem --key client.key", "belong together"),
        ("--address h:1 --server-name x", "add --ca"),
        ("--address h:1 --token-file token", "over TLS or a Unix socket alone"),
        ("--address /g.sock --ca ca.pem", "needs no TLS"),
        ("--address nonsense", "write unix:///path"),
        ("--ca ca.pem", "--address"),
        ("--address h:1 --ca none.pem", "No such file"),
        ("--address h:1 --ca .", "Is a directory"),
        ("--address h:1 --ca not.pem", "holds no PEM certificate"),
        ("--address h:1 --ca broken.pem", "is broken"),
        ("--address h:1 --ca ca.pem --cert not.pem --key client.key", "--cert"),
        ("--address h:1 --ca ca.pem --cert client.pem --key not.pem", "holds no PEM key"),
        ("--address h:1 --ca ca.pem --cert client.pem --key locked.key", "is encrypted"),
        ("--address h:1 --ca ca.pem --cert client.pem --key ca.key", "not that of the cert"),
        ("--address h:1 --ca ca.pem --token-file none", "No such file"),
        ("--address h:1 --ca ca.pem --token-file two", "one token"),
        ("--address h:1 --ca ca.pem --token-file empty", "one token"),
        ("--address h:1 --ca ca.pem --token-file short", "holds no token: one is gpud_ and 43"),
        ("--address h:1 --ca ca.pem --token-file hash", "`gpud token create` prints it"),
    ],
)
def test_what_cannot_be_kept_is_refused(
    given: str, why: str, files: Path, gpuctl: Gpuctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    ended = gpuctl(f"context add rig {given}")
    assert (ended.code, ended.out) == (2, "")
    assert why in ended.err
    assert "Traceback" not in ended.err
    assert gpuctl("context list -o name").out == ""


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("context add 'a b' --address h:1", "is no name"),
        ("context use rog", "there is no context 'rog'; there are: none yet"),
        ("context use", "--none"),
        ("context use rig --none", "--none"),
        ("context remove rog", "there is no context"),
        ("context show", "no current context"),
        ("context frob", "frob"),
        ("--context rog devices", "there is no context 'rog'"),
    ],
)
def test_wrong_command_lines(arguments: str, why: str, gpuctl: Gpuctl) -> None:
    ended = gpuctl(arguments)
    assert ended.code == 2
    assert why in ended.err


def test_one_of_that_name_is_replaced_only_if_told(gpuctl: Gpuctl) -> None:
    gpuctl("context add rig --address h:1")
    ended = gpuctl("context add rig --address h:2")
    assert ended.code == 2
    assert "--replace" in ended.err
    assert gpuctl("context add rig --address h:2 --replace").code == 0
    assert "h:2" in gpuctl("context list").out


def test_secrets_that_all_can_read_and_old_certificates_are_warned_of(
    files: Path, gpuctl: Gpuctl
) -> None:
    (files / "expired.key").chmod(0o644)
    ended = gpuctl(
        f"context add rig --address h:1 --ca {files}/ca.pem "
        f"--cert {files}/expired.pem --key {files}/expired.key"
    )
    assert ended.code == 0
    assert f"warning: every user of this host can read {files}/expired.key" in ended.err
    assert f"warning: the certificate in {files}/expired.pem expired on 20" in ended.err


@pytest.mark.usefixtures("terminal")
def test_a_long_address_keeps_the_list_within_80_columns(gpuctl: Gpuctl) -> None:
    gpuctl(f"context add rig --address {'long.' * 30}example:50551")
    assert max(map(len, gpuctl("context list").out.splitlines())) == 80
    assert "example:50551" in gpuctl("context list -o wide").out


def test_an_environment_that_goes_before_is_told(gpuctl: Gpuctl) -> None:
    gpuctl("context add rig --address h:1")
    assert "GPUCTL_ADDRESS=" in gpuctl("context use rig").err


def test_the_order_in_which_an_address_is_looked_for(
    gpuctl: Gpuctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two", "three"):
        gpuctl(f"context add {name} --address {name}:1")
    gpuctl("context use three")
    monkeypatch.setenv("GPUCTL_ADDRESS", "variable:1")
    monkeypatch.setenv("GPUCTL_CONTEXT", "two")
    assert chosen("option:1", "one").address == "option:1"
    assert chosen("", "one").address == "one:1"
    assert chosen("", "").address == "variable:1"
    monkeypatch.delenv("GPUCTL_ADDRESS")
    assert chosen("", "").address == "two:1"
    monkeypatch.delenv("GPUCTL_CONTEXT")
    assert chosen("", "").address == "three:1"
    gpuctl("context use --none")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nowhere")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert chosen("", "").address == "unix:///nowhere/gpud/gpud.sock"


def test_a_command_goes_to_the_context_that_it_names(
    daemon: FakeDaemon, gpuctl: Gpuctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpuctl(f"context add rig --address {daemon.address} --use")
    monkeypatch.setenv("GPUCTL_ADDRESS", "/nowhere.sock")
    assert gpuctl("status").code == 78
    assert gpuctl("status --context rig").code == 0
    monkeypatch.setenv("GPUCTL_ADDRESS", "")
    assert gpuctl("status").code == 0


def test_a_current_one_that_was_edited_away(
    gpuctl: Gpuctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GPUCTL_ADDRESS", "")
    (tmp_path / "config" / "gpuctl").mkdir(parents=True)
    (tmp_path / "config" / "gpuctl" / "contexts.toml").write_text('current = "gone"\n')
    ended = gpuctl("status")
    assert ended.code == 2
    assert "the current context 'gone' is not among those kept" in ended.err
