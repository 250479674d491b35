"""`gpud tls` and `gpud token`: what they write and print, and that a refusal changes nothing."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from gpud.access.authority.folder import Made, Wanted, issue
from gpud.access.authority.issuing import (
    Client,
    IssueRefused,
    issue_client,
    new_authority,
    parse_client,
    parse_server,
)
from gpud.access.certificates import peer, read_pair
from gpud.config import load
from gpud.settings import Tls
from tests.access.paper import DAY, NOW, Office

ANNA = Client(name="anna", uri="spiffe://gpud/anna")
BOB = Client(name="bob", uri="spiffe://fleet/bob")


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def make(folder: Path, **wanted: object) -> Made:
    return issue(folder, Wanted(**{"servers": ("gpu1",), "clients": (ANNA,), **wanted}), NOW)  # type: ignore[arg-type]


def refused(folder: Path, **wanted: object) -> str:
    """The refusal; nothing in the folder has changed."""
    before = files(folder) if folder.is_dir() else None
    with pytest.raises(IssueRefused) as caught:
        make(folder, **wanted)
    words = str(caught.value)
    assert words.startswith("cannot ")
    assert "\n" not in words
    assert (files(folder) if folder.is_dir() else None) == before
    assert not list(folder.glob(".new-*"))
    return words


# What is made.


def test_a_new_folder(tmp_path: Path) -> None:
    folder = tmp_path / "etc" / "tls"
    made = make(folder)
    assert made.is_new
    assert sorted(files(folder)) == [
        "ca-key.pem", "ca.pem", "clients/anna-key.pem", "clients/anna.pem",
        "server-key.pem", "server.pem",
    ]  # fmt: skip
    assert mode(folder) == mode(folder / "clients") == 0o700
    for path in folder.rglob("*.pem"):
        assert mode(path) == (0o600 if path.stem.endswith("-key") else 0o644)
    pair = read_pair(
        Tls(
            certificate=str(folder / "server.pem"),
            key=str(folder / "server-key.pem"),
            client_ca=str(folder / "ca.pem"),
        ),
        NOW,
    )
    assert pair.names == ("gpu1", "localhost", "127.0.0.1", "::1")
    assert peer((folder / "clients/anna.pem").read_bytes()).uris == (ANNA.uri,)


def test_openssl_takes_them_for_what_they_are_for(tmp_path: Path) -> None:
    make(tmp_path)
    for name, purpose, good in (
        ("server.pem", "sslserver", True),
        ("server.pem", "sslclient", False),
        ("clients/anna.pem", "sslclient", True),
        ("clients/anna.pem", "sslserver", False),
    ):
        checked = subprocess.run(
            ["openssl", "verify", "-x509_strict", "-purpose", purpose,
             "-CAfile", tmp_path / "ca.pem", tmp_path / name],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (checked.returncode == 0) is good, checked.stderr


def test_the_ca_signs_no_other_ca(tmp_path: Path) -> None:
    make(tmp_path)
    ca = x509.load_pem_x509_certificate((tmp_path / "ca.pem").read_bytes())
    found = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (found.critical, found.value.ca, found.value.path_length) == (True, True, 0)
    assert (ca.not_valid_after_utc - ca.not_valid_before_utc).days == 3652


def test_a_second_run_adds_by_the_same_ca(tmp_path: Path) -> None:
    make(tmp_path)
    before = files(tmp_path)
    made = make(tmp_path, servers=("10.0.0.7",), node="gpu2", clients=(BOB,))
    assert not made.is_new
    after = files(tmp_path)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {
        "servers/gpu2.pem", "servers/gpu2-key.pem", "clients/bob.pem", "clients/bob-key.pem",
    }  # fmt: skip
    for name in ("servers/gpu2.pem", "clients/bob.pem"):
        subprocess.run(
            ["openssl", "verify", "-CAfile", tmp_path / "ca.pem", tmp_path / name],
            check=True, capture_output=True,
        )  # fmt: skip


def test_force_replaces_leaves_and_never_the_ca(tmp_path: Path) -> None:
    make(tmp_path)
    before = files(tmp_path)
    make(tmp_path, replace=True)
    after = files(tmp_path)
    assert {name for name in after if after[name] == before[name]} == {"ca.pem", "ca-key.pem"}
    assert set(after) == set(before)


def test_a_leaf_does_not_outlive_its_ca() -> None:
    authority = new_authority(NOW - 3600 * DAY)
    issued = issue_client(authority, ANNA, NOW)
    leaf = x509.load_pem_x509_certificate(issued.certificate)
    assert leaf.not_valid_after_utc == authority.certificate.not_valid_after_utc


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_root_gives_the_servers_files_to_the_folders_owner(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    make(tmp_path)
    owners = {name: (tmp_path / name).stat().st_uid for name in files(tmp_path)}
    theirs = {name for name, uid in owners.items() if uid == 12345}
    assert theirs == {"server.pem", "server-key.pem"}


# What is refused.


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    make(tmp_path)
    assert "server.pem: it is there already" in refused(tmp_path, clients=(BOB,))
    assert "clients/anna.pem: it is there already" in refused(
        tmp_path, servers=("x",), node="gpu2", clients=(BOB, ANNA)
    )
    (tmp_path / "server.pem").unlink()
    assert "server-key.pem: it is there already" in refused(tmp_path, clients=(BOB,))


@pytest.mark.parametrize(("gone", "there"), [("ca.pem", "ca-key.pem"), ("ca-key.pem", "ca.pem")])
def test_half_a_ca(tmp_path: Path, gone: str, there: str) -> None:
    make(tmp_path)
    (tmp_path / gone).unlink()
    words = refused(tmp_path, servers=(), clients=(BOB,))
    assert f"{there} is there and {gone} is not; put {gone} back" in words


def test_a_ca_that_is_no_good(tmp_path: Path) -> None:
    make(tmp_path)
    good = (tmp_path / "ca.pem").read_bytes()
    shutil.copy(tmp_path / "server.pem", tmp_path / "ca.pem")
    assert "not that of a CA" in refused(tmp_path, servers=(), clients=(BOB,))
    (tmp_path / "ca.pem").write_bytes(Office(tmp_path).ca)
    assert "the key of another" in refused(tmp_path, servers=(), clients=(BOB,))
    (tmp_path / "ca.pem").write_bytes(good[:200])
    assert "cannot be read" in refused(tmp_path, servers=(), clients=(BOB,))
    (tmp_path / "ca.pem").write_bytes(good)
    (tmp_path / "ca-key.pem").chmod(0o644)
    assert "others may read it" in refused(tmp_path, servers=(), clients=(BOB,))


def test_a_ca_that_is_not_well_formed(tmp_path: Path) -> None:
    make(tmp_path)
    pem = (tmp_path / "ca.pem").read_bytes()
    form = serialization.Encoding.DER
    der = x509.load_pem_x509_certificate(pem).public_bytes(form)
    spoiled = base64.encodebytes(der.replace(b"gpud private CA", b"gpud private \xff\xff"))
    (tmp_path / "ca.pem").write_bytes(
        b"-----BEGIN CERTIFICATE-----\n" + spoiled + b"-----END CERTIFICATE-----\n"
    )
    words = refused(tmp_path, servers=(), clients=(BOB,))
    assert f"the CA's certificate {tmp_path}/ca.pem: " in words
    ended = run("show", tmp_path / "ca.pem")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "of which a part cannot be read" in ended.stderr


def test_a_ca_whose_days_are_over_or_to_come(tmp_path: Path) -> None:
    make(tmp_path)
    before = files(tmp_path)
    for now, told in ((NOW + 4000 * DAY, "the CA ended on 2"), (NOW - DAY, "set the clock")):
        with pytest.raises(IssueRefused, match=told):
            issue(tmp_path, Wanted(clients=(BOB,)), now)
        assert files(tmp_path) == before


def test_a_folder_that_others_may_write_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert "others may write there (mode 0777)" in refused(tmp_path)


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "tls").write_text("")
    assert "not a directory" in refused(tmp_path / "tls")
    assert "not a directory" in refused(tmp_path / "tls" / "deeper")


def test_a_folder_where_nothing_can_be_made() -> None:
    assert "cannot write to /proc/self/tls" in refused(Path("/proc/self/tls"))


def test_a_folder_in_the_place_of_a_file(tmp_path: Path) -> None:
    """It shows only when the files are put into their places: those before it come back."""
    make(tmp_path)
    (tmp_path / "server.pem").unlink()
    (tmp_path / "server.pem").mkdir()
    refused(tmp_path, clients=(BOB,), replace=True)
    assert (tmp_path / "server-key.pem").is_file()
    assert not (tmp_path / "clients" / "bob.pem").exists()


def test_a_disk_that_is_full_leaves_nothing(tmp_path: Path) -> None:
    """Of a file that may not grow the kernel says EFBIG, as of a full disk ENOSPC."""
    folder = tmp_path / "tls"
    ended = subprocess.run(
        ["bash", "-c", 'ulimit -f 0; exec "$@"', "bash", *command("init", folder), *SERVER],
        capture_output=True, text=True, check=False, timeout=60, env=ENVIRONMENT,
    )  # fmt: skip
    assert ended.returncode == 2, ended.stderr
    assert "nothing was changed" in ended.stderr
    assert not folder.exists()


@pytest.mark.parametrize("blocks", [1, 3, 5])
def test_a_disk_that_fills_half_way(tmp_path: Path, blocks: int) -> None:
    """Six files of a block each do not go in; what is there is what was there before."""
    own = ("unshare", "-m") if os.geteuid() == 0 else ("unshare", "-Urm")
    script = (
        f'mount -t tmpfs -o size={4096 * blocks},mode=700 small "$0" || exit 77; '
        'cd "$0"; "$@"; code=$?; find . -mindepth 1; exit $code'
    )
    words = command("init", tmp_path, *SERVER, "--client", "anna")
    ended = subprocess.run(
        [*own, "sh", "-c", script, tmp_path, *words],
        capture_output=True, text=True, check=False, timeout=60,
        env={**ENVIRONMENT, "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    if ended.returncode == 77 or "unshare" in ended.stderr:
        pytest.skip("no file system of its own may be mounted here")
    assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
    assert "no space left on device; nothing was changed" in ended.stderr


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("GPU1.lan", "gpu1.lan"),
        ("*.fleet.test", "*.fleet.test"),
        ("10.0.0.5", "10.0.0.5"),
        ("[fd00::0:1]", "fd00::1"),
        ("my_host", "my_host"),
    ],
)
def test_names_of_servers(text: str, name: str) -> None:
    assert parse_server(text) == name


@pytest.mark.parametrize(
    "text",
    ["", "a b", "a..b", "-a", "a.*.b", "*", "10.0.0.300", "gpu1:50551", "a/b", "ü.test", "a" * 64,
     "fe80::1%eth0", "a.b\n", "x\0"],
)  # fmt: skip
def test_names_that_no_server_has(text: str) -> None:
    with pytest.raises(IssueRefused, match="cannot name a server"):
        parse_server(text)


def test_names_of_clients() -> None:
    assert parse_client("anna") == ANNA
    assert parse_client("bob=spiffe://fleet/bob") == BOB
    assert parse_client("w=urn:uuid:1-2").uri == "urn:uuid:1-2"


@pytest.mark.parametrize(
    "text",
    ["", "Anna", "../anna", "a/b", "anna-key", "a b", "-a", "a" * 64, "a=", "a=fleet", "a=x: y",
     'a=spiffe://f/"', "a=spiffe://f/*", "a=spiffe://f", "a=spiffe://F/x", "a=spiffe://f//x",
     "a=x://" + "y" * 255, "a\n", "a=x://y\n"],
)  # fmt: skip
def test_names_that_no_client_has(text: str) -> None:
    with pytest.raises(IssueRefused):
        parse_client(text)


# The program.

SERVER = ("--server", "gpu1.lan")
ENVIRONMENT = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "gpud", "tls", *map(str, words)]


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words), capture_output=True, text=True, check=False, timeout=60, env=ENVIRONMENT
    )


def test_what_init_prints_is_the_servers_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "my tls"
    ended = run("init", folder, *SERVER, "--server", "::1", "--client", "anna", "--client",
                "bob=spiffe://fleet/bob")  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert f"{folder}/ca-key.pem" in ended.stderr
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "tls.toml").write_text(ended.stdout)
    (tmp_path / "gpud.toml").write_text("[server]\nlisten_role = 'none'\n")
    config = load(tmp_path / "gpud.toml", {})
    assert config.server.listen == "0.0.0.0:50551"
    assert config.identities == {ANNA.uri: "operator", BOB.uri: "operator"}
    assert read_pair(config.tls, NOW + 60).names[0] == "gpu1.lan"
    assert (
        f"gpuctl context add anna --address gpu1.lan:50551 --ca '{folder}/ca.pem' "
        f"--cert '{folder}/clients/anna.pem' --key '{folder}/clients/anna-key.pem'"
    ) in ended.stdout
    checked = subprocess.run(
        [sys.executable, "-m", "gpud", "config", "check", "--config", tmp_path / "gpud.toml"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert "valid" in checked.stdout, checked.stderr
    assert "warning" not in checked.stderr
    (folder / "server-key.pem").chmod(0o644)
    checked = subprocess.run(
        [sys.executable, "-m", "gpud", "config", "check", "--config", tmp_path / "gpud.toml"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert checked.returncode == 2
    assert "others may read it" in checked.stderr


def test_a_later_run_prints_what_it_adds(tmp_path: Path) -> None:
    make(tmp_path)
    ended = run("init", tmp_path, "--client", "bob")
    assert tomllib.loads(ended.stdout) == {"identities": {"spiffe://gpud/bob": "operator"}}
    assert "--address SERVER:50551" in ended.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "name a --server or a --client"),
        (("--client", "a", "--node", "x"), "name its --server"),
        (("--client", "a", "--client", "a=spiffe://x/y"), "the same name"),
        (("--client", "a=spiffe://x/y", "--client", "b=spiffe://x/y"), "the same identity"),
        (("--client", "A"), "cannot name a client"),
        (("--server", "a b"), "cannot name a server"),
        (("--server", "a", "--node", "../x"), "cannot name a client '../x'"),
    ],
)
def test_bad_words_end_with_2_and_write_nothing(
    tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    ended = run("init", tmp_path / "tls", *words)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "tls").exists()


def test_show(tmp_path: Path) -> None:
    make(tmp_path)
    shown = run("show", tmp_path / "server.pem").stdout
    for pattern in (
        r"subject  CN=gpu1\n",
        r"issuer   CN=gpud private CA [0-9a-f]{8}\n",
        r"names    gpu1, localhost, 127\.0\.0\.1, ::1\n",
        r"usage    serverAuth\n",
        r"expires  20\d\d-\d\d-\d\d \d\d:\d\d UTC, in 825 days\n",
        r"serial   [0-9a-f]+\n",
        r"sha256   [0-9a-f]{64}\n",
    ):
        assert re.search(pattern, shown), shown
    assert "usage    CA" in run("show", tmp_path / "ca.pem").stdout
    (tmp_path / "old.pem").write_bytes(Office(tmp_path, new_authority(NOW - 3660 * DAY)).ca)
    assert "8 days ago" in run("show", tmp_path / "old.pem").stdout
    ended = run("show", tmp_path / "server-key.pem")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "holds no PEM certificate" in ended.stderr


def test_a_token_is_shown_once_and_kept_as_a_hash() -> None:
    words = [sys.executable, "-m", "gpud", "token", "create"]
    ended = subprocess.run(
        [*words, "ci.build", "--role", "operator"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    token, _, snippet = ended.stdout.partition("\n")
    assert re.fullmatch(r"gpud_[A-Za-z0-9_-]{43}", token)
    sha256 = hashlib.sha256(token.encode()).hexdigest()
    assert tomllib.loads(snippet) == {
        "tokens": {"ci.build": {"sha256": sha256, "role": "operator"}}
    }
    for wrong in (["CI", "--role", "operator"], ["ci", "--role", "king"], ["ci"]):
        ended = subprocess.run(
            [*words, *wrong], capture_output=True, text=True, check=False, timeout=60
        )
        assert (ended.returncode, ended.stdout) == (2, "")
