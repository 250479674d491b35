"""What the configuration may say but hardly means: told by `gpud config check`, at the start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuctl.access.addresses import auth_socket
from gpud.config import load
from gpud.errors import ConfigInvalid
from gpud.listening import derived_auth_socket, warnings
from tests.test_config import PAIR, TOKEN

MAIN = "/run/gpud/gpud.sock"


def test_tokens_beside_a_ca_are_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "gpud.toml"
    tls = f"[tls]\n{PAIR}\n"
    listen = "[server]\nlisten = '127.0.0.1:50551'\n"
    for text, count in (
        (f"{listen}{tls}client_ca = 'c'\n{TOKEN}", 1),
        (f"{listen}{tls}client_ca = 'c'\n", 0),
        (f"{listen}{tls}{TOKEN}", 0),
        (f"{tls}client_ca = 'c'\n{TOKEN}", 0),
    ):
        path.write_text(text)
        assert len(warnings(load(path, {}), MAIN)) == count
    path.write_text(f"{listen}{tls}client_ca = 'c'\n{TOKEN}")
    (told,) = warnings(load(path, {}), MAIN)
    assert "a token alone does not open 127.0.0.1:50551" in told


@pytest.mark.parametrize("role", ["operator", "viewer"])
@pytest.mark.parametrize(
    ("main", "path", "fix"),
    [
        (MAIN, "/run/gpud/gpud.ROLE.sock", ""),
        (MAIN, "/run//gpud/gpud.ROLE.sock", ""),
        (MAIN, "/run/gpud/ROLE.sock", "name it /run/gpud/gpud.ROLE.sock"),
        (MAIN, "/run/users/gpud.ROLE.sock", "name it /run/gpud/gpud.ROLE.sock"),
        (MAIN, "/run/gpud/gpud.ROLE", "name it /run/gpud/gpud.ROLE.sock"),
        ("/a/b", "/a/b.ROLE", "choose another server.socket"),
        ("/a/b", "/a/b.ROLE.sock", "beside it /run/gpud/gpud.ROLE.sock"),
        ("/a/b.c", "/a/b.ROLE.sock", "name it /a/b.ROLE.c"),
        (f"/a/{'b' * 100}", f"/a/{'b' * 100}.ROLE", "server.socket"),
    ],
)
def test_a_socket_for_users_is_where_gpuctl_finds_their_tokens(
    tmp_path: Path, role: str, main: str, path: str, fix: str
) -> None:
    path, fix = path.replace("ROLE", role), fix.replace("ROLE", role)
    file = tmp_path / "gpud.toml"
    text = f"[server]\nsocket = '{main}'\n[sockets.{role}]\npath = '{path}'\n"
    file.write_text(text)
    if len(path) <= 107:
        assert warnings(load(file, {}), main) == []
    text += "users_only = true\n"
    file.write_text(text)
    if not fix:
        assert warnings(load(file, {}), main) == []
        return
    with pytest.raises(ConfigInvalid) as caught:
        load(file, {})
    assert f"sockets.{role}.path: " in str(caught.value)
    assert fix in str(caught.value) or "choose a shorter one" in str(caught.value)
    if len(path) <= 107:
        file.write_text(f"{text}{TOKEN}")  # who has one of these gets in
        (told,) = warnings(load(file, {}), main)
        assert fix in told


def test_a_denied_name_that_may_be_nobodys_is_warned_of(tmp_path: Path) -> None:
    path, denied = tmp_path / "gpud.toml", tmp_path / "denied"
    path.write_text(f"{TOKEN}[access]\ndenied = 'denied'\n")
    for text, told in (
        ("ci\n", ""),
        ("anna\n", f"gpud: warning: access.denied {denied}: 'anna' "),
    ):
        denied.write_text(text)
        ended = subprocess.run(
            [sys.executable, "-m", "gpud", "config", "check", "--config", path],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        assert ended.stderr.startswith(told)
        assert bool(ended.stderr) == bool(told)


@given(st.text("gpud./_-", min_size=1).map(lambda text: f"/a{text}"))
def test_property_gpuctl_is_known_to_look_there(path: str) -> None:
    for name in (path, f"{path}.operator.sock", f"{path}.viewer"):
        assert derived_auth_socket(name) == auth_socket(name)
