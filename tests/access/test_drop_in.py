"""`gpud tls init --output`: the file of conf.d/ is written last, whole, and added to."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gpud.access.authority.drop_in import DropIn
from gpud.access.authority.issuing import IssueRefused
from gpud.config import load

ANNA, BOB = "spiffe://gpud/anna", "spiffe://gpud/bob"
SERVER = ("--server", "gpu1.lan")
TLS = {"certificate": "/a/server.pem", "key": "/a/server-key.pem", "client_ca": "/a/ca.pem"}


def init(folder: Path, output: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gpud", "tls", "init", folder / "tls", "--output", output, *words],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text())


def listing(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_it_is_what_standard_output_would_have_been(tmp_path: Path) -> None:
    output = tmp_path / "conf.d" / "remote.toml"
    ended = init(tmp_path, output, *SERVER, "--client", "anna")
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
    assert f"{output}  (what gpud's configuration needs" in ended.stderr
    assert output.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in output.parent.iterdir()] == ["remote.toml"]
    (tmp_path / "gpud.toml").write_text("")
    config = load(tmp_path / "gpud.toml", {})
    assert config.server.listen == "0.0.0.0:50551"
    assert config.tls.client_ca == f"{tmp_path}/tls/ca.pem"
    assert config.identities == {ANNA: "operator"}
    assert "gpuctl context add anna --address gpu1.lan:50551" in output.read_text()


def test_a_second_run_of_the_same_leaves_all_as_it_was(tmp_path: Path) -> None:
    output = tmp_path / "remote.toml"
    init(tmp_path, output, *SERVER, "--client", "anna")
    before = listing(tmp_path)
    ended = init(tmp_path, output, *SERVER, "--client", "anna")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "leave --server out" in ended.stderr
    assert init(tmp_path, output, "--client", "anna").returncode == 2
    assert listing(tmp_path) == before


def test_a_further_client_is_added_and_what_was_edited_stays(tmp_path: Path) -> None:
    output = tmp_path / "remote.toml"
    init(tmp_path, output, *SERVER, "--client", "anna")
    edited = output.read_text().replace(':50551"', ':443"').replace('"operator"', '"viewer"')
    output.write_text(edited)
    output.chmod(0o640)
    ended = init(tmp_path, output, "--client", "bob")
    assert ended.returncode == 0, ended.stderr
    told = read(output)
    assert told["identities"] == {ANNA: "viewer", BOB: "operator"}
    assert told["server"]["listen"] == "0.0.0.0:443"
    assert output.stat().st_mode & 0o777 == 0o640
    text = output.read_text()
    assert [line for line in edited.splitlines() if line not in text.splitlines()] == []
    assert text.count("On a client's machine") == 1
    assert "gpuctl context add bob" in text


def test_force_replaces_certificates_and_no_role(tmp_path: Path) -> None:
    output = tmp_path / "remote.toml"
    init(tmp_path, output, *SERVER, "--client", "anna")
    output.write_text(output.read_text().replace('"operator"', '"admin"'))
    before, served = output.read_text(), (tmp_path / "tls/server.pem").read_bytes()
    ended = init(tmp_path, output, *SERVER, "--client", "anna", "--force")
    assert ended.returncode == 0, ended.stderr
    assert output.read_text() == before
    assert (tmp_path / "tls/server.pem").read_bytes() != served


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[server\n", "it is no TOML"),
        ("[tls]\ncertificate = '/else'\n", "it has one already"),
        ("[server]\nsocket = '/a'\n", "it has one already"),
    ],
)
def test_a_file_that_it_cannot_add_to_keeps_all_as_it_was(
    tmp_path: Path, text: str, told: str
) -> None:
    output = tmp_path / "remote.toml"
    output.write_text(text)
    ended = init(tmp_path, output, *SERVER, "--client", "anna")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert told in ended.stderr
    assert listing(tmp_path) == {"remote.toml": text.encode()}


def test_a_server_that_a_file_says_otherwise_is_not_added(tmp_path: Path) -> None:
    for text in ("[tls]\ncertificate = '/else'\n", "[server]\nsocket = '/a'\n"):
        with pytest.raises(IssueRefused, match="says something else"):
            BOTH.added_to(text, "/f")


def test_places_that_are_no_good(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    for output, told in (
        (tmp_path / "conf.d" / "remote", "gpud reads *.toml alone"),
        (tmp_path / "conf.d", "is a directory"),
    ):
        ended = init(tmp_path, output, *SERVER)
        assert ended.returncode == 2
        assert told in ended.stderr
        assert not (tmp_path / "tls").exists()


def test_what_was_issued_is_printed_where_the_file_cannot_be_written(tmp_path: Path) -> None:
    output = Path("/proc/self/remote.toml")
    ended = init(tmp_path, output, *SERVER, "--client", "anna")
    assert ended.returncode == 2
    assert f"cannot write {output}" in ended.stderr
    assert tomllib.loads(ended.stdout)["identities"] == {ANNA: "operator"}
    assert (tmp_path / "tls" / "server.pem").is_file()


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real.toml").write_text("# mine\n")
    os.symlink("real.toml", tmp_path / "remote.toml")
    assert init(tmp_path, tmp_path / "remote.toml", *SERVER).returncode == 0
    assert (tmp_path / "remote.toml").is_symlink()
    assert (tmp_path / "real.toml").read_text().startswith("# mine\n\n# The port is open")


# Adding, as text.

BOTH = DropIn(listen="0.0.0.0:50551", tls=TLS, identities={"n://a": "operator"}, comments=("# c",))
CLIENT = DropIn(identities={"n://b": "operator"}, comments=("# c", "# d"))


def test_a_name_goes_to_the_end_of_its_table() -> None:
    text = BOTH.text() + "\n[access]\ndenied = 'denied'\n"
    made = CLIENT.added_to(text, "f")
    at = made.splitlines().index('"n://a" = "operator"')
    assert made.splitlines()[at + 1] == '"n://b" = "operator"'
    assert tomllib.loads(made) == {
        **tomllib.loads(text), "identities": {"n://a": "operator", "n://b": "operator"}
    }  # fmt: skip
    assert made.endswith("\n# d\n")
    assert CLIENT.added_to(made, "f") == made


@pytest.mark.parametrize(
    "text",
    ["", "# nothing yet", "[identities]", "[ identities ] # x\n\n# y\n\n[policy]\n",
     "[identities]\n'n://z' = 'admin' # [x]\n[tokens.ci]\nrole = 'viewer'"],
)  # fmt: skip
def test_whatever_was_said_is_said_still(text: str) -> None:
    old = tomllib.loads(text)
    for each in (CLIENT, BOTH):
        new = tomllib.loads(each.added_to(text, "f"))
        assert {key: new[key] for key in old if key != "identities"} == {
            key: value for key, value in old.items() if key != "identities"
        }
        assert new["identities"] == {**old.get("identities", {}), **each.identities}
        assert new.get("tls", {}) == dict(each.tls)


@pytest.mark.parametrize(
    "text",
    ["identities = { 'n://a' = 'viewer' }", "identities.'n://a' = 'viewer'",
     "identities = 3", '["identities"]\n"n://a" = "viewer"\n[policy]'],
)  # fmt: skip
def test_what_is_written_in_an_unusual_way_is_left_to_its_writer(text: str) -> None:
    with pytest.raises(IssueRefused, match="cannot add to /f: its "):
        CLIENT.added_to(text, "/f")
