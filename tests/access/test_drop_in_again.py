"""`gpud tls init --output`, run again: another identity, another folder, two at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gpud.access.authority.drop_in import DropIn
from gpud.access.authority.issuing import IssueRefused
from gpud.access.authority.output import Output
from gpud.tls_command import tls_group
from tests.access.test_drop_in import ANNA, BOB, SERVER, init, listing, read

NEW = "spiffe://fleet/anna"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Of a server and of anna, a viewer."""
    made = tmp_path / "remote.toml"
    assert init(tmp_path, made, *SERVER, "--client", "anna").returncode == 0
    made.write_text(made.read_text().replace('"operator"', '"viewer"  # since May'))
    return made


def contexts(output: Path) -> list[str]:
    return [line for line in output.read_text().splitlines() if "gpuctl context add" in line]


# Nothing is issued that could not be said.


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[tls]\ncertificate = '/else'\n", "says something else"),
        ("identities = { 'n://a' = 'viewer' }\n", "is not one table of lines"),
        ("identities = 3\n", "are no table"),
    ],
)
def test_a_file_is_refused_before_anything_is_replaced(
    tmp_path: Path, output: Path, text: str, told: str
) -> None:
    output.write_text(text)
    before = listing(tmp_path)
    ended = init(tmp_path, output, *SERVER, "--client", "anna", "--force")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert told in ended.stderr
    assert listing(tmp_path) == before


def test_a_folder_that_is_not_its_servers_is_refused_and_not_made(output: Path) -> None:
    other = output.parent / "other"
    ended = init(other, output, *SERVER, "--force")
    assert ended.returncode == 2
    assert "says something else" in ended.stderr
    assert not (other / "tls").exists()


# Two at once.


@pytest.mark.parametrize("moment", ["check", "write"])
def test_of_two_at_once_neither_is_lost(
    tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    really: Callable[..., Any] = getattr(Output, moment)
    others: list[tuple[int, bool]] = []

    def meanwhile(*words: Any) -> Any:
        ended = init(tmp_path, output, "--client", "carl")
        others.append((ended.returncode, "another `gpud tls init` is at work" in ended.stderr))
        return really(*words)

    monkeypatch.setattr(Output, moment, meanwhile)
    words = ["init", str(tmp_path / "tls"), "--output", str(output), "--client", "bob"]
    ended = CliRunner().invoke(tls_group, words, catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    assert others == [(2, True)]
    assert init(tmp_path, output, "--client", "carl").returncode == 0
    assert list(read(output)["identities"]) == [ANNA, BOB, "spiffe://gpud/carl"]


# Another identity.


def test_another_identity_takes_the_place_and_the_role_of_the_one_before(
    tmp_path: Path, output: Path
) -> None:
    init(tmp_path, output, "--client", "bob")
    before = output.read_text()
    ended = init(tmp_path, output, "--client", f"anna={NEW}", "--force")
    assert ended.returncode == 0, ended.stderr
    assert output.read_text() == before.replace(ANNA, NEW)
    assert read(output)["identities"] == {NEW: "viewer", BOB: "operator"}


def test_an_identity_that_another_client_has_as_well_stays(tmp_path: Path, output: Path) -> None:
    init(tmp_path, output, "--client", f"bob={ANNA}")
    assert init(tmp_path, output, "--client", f"anna={NEW}", "--force").returncode == 0
    assert read(output)["identities"] == {ANNA: "viewer", NEW: "operator"}
    assert init(tmp_path, output, "--client", "bob", "--force").returncode == 0
    assert read(output)["identities"] == {BOB: "viewer", NEW: "operator"}


def test_identities_may_be_exchanged(tmp_path: Path, output: Path) -> None:
    init(tmp_path, output, "--client", "bob")
    before = output.read_text()
    words = ("--client", f"bob={ANNA}", "--client", f"anna={BOB}", "--force")
    assert init(tmp_path, output, *words).returncode == 0
    assert output.read_text() == before


def test_no_role_is_handed_on_by_a_certificate_that_was_put_there(
    tmp_path: Path, output: Path
) -> None:
    """The folder's user may move what is in it; a role is not the user's to give."""
    init(tmp_path, output, "--client", "root=spiffe://gpud/root")
    output.write_text(output.read_text().replace('/root" = "operator"', '/root" = "admin"'))
    clients = tmp_path / "tls" / "clients"
    (clients / "root.pem").replace(clients / "anna.pem")
    assert init(tmp_path, output, "--client", f"anna={NEW}", "--force").returncode == 0
    roles = {ANNA: "viewer", "spiffe://gpud/root": "admin", NEW: "operator"}
    assert read(output)["identities"] == roles
    shutil.copy(clients / "anna-key.pem", clients / "anna.pem")  # no certificate at all
    assert init(tmp_path, output, "--client", "anna", "--force").returncode == 0
    assert read(output)["identities"] == roles


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ('"o://a" = "viewer" # x', '"n://a" = "viewer" # x'),
        (" 'o://a'='viewer'", "\"n://a\"='viewer'"),
        ('"o://a" = "viewer"\n"n://a" = "admin"', '"n://a" = "admin"'),
        ('"x" = "admin"', '"x" = "admin"\n"n://a" = "operator"'),
    ],
)
def test_a_name_is_replaced_in_its_line(text: str, made: str) -> None:
    said = DropIn(identities={"n://a": "operator"}, replaced={"o://a": "n://a"})
    assert said.added_to(f"[identities]\n{text}\n", "f") == f"[identities]\n{made}\n"


def test_a_name_that_is_written_in_an_unusual_way_is_left_to_its_writer() -> None:
    said = DropIn(identities={"n://a": "operator"}, replaced={"o://a": "n://a"})
    with pytest.raises(IssueRefused, match="is not one table of lines"):
        said.added_to('[identities]\n"o://a" = """\nviewer"""\n', "/f")


# Where the server is.


@pytest.mark.parametrize(
    ("names", "address"),
    [
        (("gpu1.lan", "10.0.0.7"), "gpu1.lan:443"),
        (("zeta.lan", "alpha.lan"), "zeta.lan:443"),
        (("fd00::7",), "[fd00::7]:443"),
        (("*.lan", "gpu1.lan"), "gpu1.lan:443"),
        (("*.lan",), "SERVER:443"),
    ],
)
def test_a_further_client_is_told_the_server_of_the_file(
    tmp_path: Path, names: tuple[str, ...], address: str
) -> None:
    output = tmp_path / "remote.toml"
    assert init(tmp_path, output, *(f"--server={name}" for name in names)).returncode == 0
    output.write_text(output.read_text().replace(':50551"', ':443"'))
    assert init(tmp_path, output, "--client", "bob").returncode == 0
    (told,) = contexts(output)
    assert f"context add bob --address {address} --ca " in told


def test_a_file_without_a_server_tells_none(tmp_path: Path) -> None:
    output = tmp_path / "remote.toml"
    for name, text in (("anna", ""), ("bob", "[tls]\ncertificate = 'gone.pem'\n")):
        output.write_text(text)
        assert init(tmp_path, output, "--client", name).returncode == 0
        (told,) = contexts(output)
        assert f"context add {name} --address SERVER:50551 " in told


def test_a_client_is_told_once_at_the_newest_address(tmp_path: Path, output: Path) -> None:
    init(tmp_path, output, "--client", "bob")
    ended = init(tmp_path, output, "--server", "gpu2.lan", "--client", "anna", "--force")
    assert ended.returncode == 0, ended.stderr
    anna, bob = contexts(output)
    assert "add anna --address gpu2.lan:50551 " in anna
    assert "add bob --address gpu1.lan:50551 " in bob
