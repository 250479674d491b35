"""A wrong configuration: one line that says what and what to do, exit 2, and nothing started."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gpud.config import load
from gpud.errors import ConfigInvalid
from gpud.units import GIB
from tests.running import Gpud

PAIR = "certificate = 'a'\nkey = 'b'\n"
TOKEN = f"[tokens.ci]\nsha256 = '{'0' * 64}'\nrole = 'viewer'\n"
WRONG = {
    "unknown key": ("[sampling]\nintervall = '1s'", ["intervall", "did you mean `interval`"]),
    "unknown table": ("[polices]", ["polices", "did you mean `policy`"]),
    "unknown key of a model": ("[models.a]\npath='a'\ncontext = 5", ["context", "context_length"]),
    "unit of a size": ("[policy]\ndevice_reserve = '5 parsec'", ["5 parsec", "write for example"]),
    "unit of a span": ("[sampling]\ninterval = '1 fortnight'", ["1 fortnight", "for example 30s"]),
    "span out of range": ("[sampling]\ninterval = '1ms'", ["sampling.interval", "10ms … 10s"]),
    "number out of range": ("[sampling]\nprocesses_every = 0", ["sampling.processes_every"]),
    "type": ("[devices]\nhost = 'yes'", ["devices.host", "bool"]),
    "negative size": ("[policy]\ndevice_reserve = -1", ["policy.device_reserve"]),
    "no choice": ("[devices]\nnvml = 'maybe'", ["devices.nvml", "maybe"]),
    "bands that do not rise": (
        "[policy]\nthermal_celsius = [65, 80, 80]", ["policy.thermal_celsius", "does not rise"],
    ),
    "a band that is never left": (
        "[policy]\npressure_percent = [40, 70, 85]\npressure_hysteresis_percent = 40",
        ["policy.pressure_hysteresis_percent", "40 is not below the first"],
    ),
    "lax allocation": ("[policy]\nstrict_allocation = false", ["policy.strict_allocation"]),
    "listen to the world": (
        "[server]\nlisten = '0.0.0.0:50551'",
        ["server.listen", "loopback", "tls.certificate and tls.key", "tls.client_ca (or a"],
    ),
    "listen to the world with a token alone": (
        f"[server]\nlisten = '0.0.0.0:50551'\n{TOKEN}", ["needs tls.certificate and tls.key;"],
    ),
    "listen to the world with TLS alone": (
        f"[server]\nlisten = '0.0.0.0:50551'\n[tls]\n{PAIR}",
        ["server.listen", "needs tls.client_ca (or a [tokens.NAME]);"],
    ),
    "TLS that nobody gets through": (
        f"[server]\nlisten = '127.0.0.1:50551'\n[tls]\n{PAIR}", ["tls.client_ca", "is missing"],
    ),
    "listen on no name": (
        f"[server]\nlisten = 'a b:50551'\n[tls]\n{PAIR}\n{TOKEN}", ["server.listen", "'a b'"],
    ),
    "certificate without a key": ("[tls]\ncertificate = 'a'", ["tls.key", "is missing"]),
    "key without a certificate": ("[tls]\nkey = 'a'", ["tls.certificate", "is missing"]),
    "CA without a certificate": ("[tls]\nclient_ca = 'a'", ["tls.client_ca", "of no use"]),
    "file with a NUL": ("[access]\ndenied = 'a\\u0000'".replace("'", '"'), ["access.denied"]),
    "short connections": ("[tls]\nmax_connection_age = '9s'", ["tls.max_connection_age", "10s"]),
    "long connections": ("[tls]\nmax_connection_age = '8d'", ["tls.max_connection_age", "7d"]),
    "identities without a CA": (
        "[identities]\n'spiffe://a/b' = 'viewer'", ["identities", "tls.client_ca"],
    ),
    "identity with a wildcard": (
        f"[tls]\n{PAIR}\nclient_ca = 'c'\n[identities]\n'spiffe://a/*' = 'viewer'",
        ["identities.'spiffe://a/*'", "exactly"],
    ),
    "identity of whoever has none": (
        f"[tls]\n{PAIR}\nclient_ca = 'c'\n[identities]\noperator = 'viewer'",
        ["identities.'operator'", "callers without a name of their own"],
    ),
    "role of an identity": (
        f"[tls]\n{PAIR}\nclient_ca = 'c'\n[identities]\n'spiffe://a/b' = 'king'",
        ['`identities."spiffe://a/b"`', "king", "one of viewer, operator, admin"],
    ),
    "unknown key of TLS": ("[tls]\nclient_cas = 'a'", ["client_cas", "did you mean `client_ca`"]),
    "hash of a token": (
        "[tokens.ci]\nsha256 = 'abc'\nrole = 'viewer'",
        ["64 lower-case hexadecimal digits", "`tokens.ci.sha256`", "`gpud token create` prints"],
    ),
    "role of a token": (
        TOKEN.replace("viewer", "root"), ["`tokens.ci.role`", "one of viewer, operator, admin"],
    ),
    "the second of two tokens": (
        TOKEN + "\n[tokens.'c.d']\nrole = 'viewer'", ["lacks the required", '`tokens."c.d"`'],
    ),
    "socket of admins": (
        "[sockets.admin]\npath = '/a/k'",
        ["no 'admin'", "[sockets.operator] and [sockets.viewer]", "server.socket"],
    ),
    "reaction": ("[policy]\non_trespass = 'shout'", ["on_trespass", "one of report, terminate"]),
    "number of a model": ("[models.a]\npath = 'a'\nparallel = 0", ["`models.a.parallel`"]),
    "unknown key of a token": (f"{TOKEN}\nrol = 'viewer'", ["rol", "did you mean `role`"]),
    "name of a token": (TOKEN.replace("ci", '"anna@host"'), ["tokens.'anna@host'", "lower-case"]),
    "one token for two": (TOKEN + TOKEN.replace("ci", "cd"), ["sha256", "of tokens.c"]),
    "mode of the socket": ("[server]\nsocket_mode = '0755'", ["server.socket_mode", "0660"]),
    "mode in decimal": ("[server]\nsocket_mode = '980'", ["server.socket_mode"]),
    "mode of a role's socket": (
        "[sockets.viewer]\npath = '/a/v'\nmode = 'rw'", ["sockets.viewer.mode", "octal"],
    ),
    "unknown role of a socket": ("[sockets.king]\npath = '/a/k'", ["sockets", "king"]),
    "unknown key of a socket": (
        "[sockets.viewer]\npath = '/a/v'\nmodes = '0660'", ["modes", "did you mean `mode`"],
    ),
    "role's socket without a path": ("[sockets.viewer]\nmode = '0660'", ["sockets", "path"]),
    "relative role's socket": ("[sockets.viewer]\npath = 'v'", ["sockets.viewer.path"]),
    "long role's socket": (
        f"[sockets.viewer]\npath = '/{'v' * 120}'", ["sockets.viewer.path", "107"],
    ),
    "one socket for two roles": (
        "[sockets.viewer]\npath = '/a/v'\n[sockets.operator]\npath = '/a//v'", ["is that of"],
    ),
    "a role's socket over the main one": (
        "[server]\nsocket = '/a/s'\n[sockets.viewer]\npath = '/a/s'",
        ["sockets.viewer.path", "server.socket"],
    ),
    "a role's socket over that of tokens": (
        "[server]\nsocket = '/a/g.sock'\n[sockets.viewer]\npath = '/a/g.auth.sock'",
        ["sockets.viewer.path", "the socket of tokens"],
    ),
    "listen on a name": ("[server]\nlisten = 'example.test:50551'", ["server.listen", "loopback"]),
    "listen without a port": ("[server]\nlisten = '127.0.0.1'", ["server.listen", "HOST:PORT"]),
    "listen on a number that is no port": (
        f"[server]\nlisten = '127.0.0.1:{'9' * 50}'", ["server.listen", "HOST:PORT"],
    ),
    "listen on whatever port is free": (
        "[server]\nlisten = '127.0.0.1:0'", ["server.listen", "to chance"],
    ),
    "http on whatever port is free": (
        "[http]\nlisten = 'localhost:0'", ["http.listen", "to chance"],
    ),
    "http to the world": ("[http]\nlisten = '[::]:9551'", ["http.listen", "loopback"]),
    "one address for two": (
        "[server]\nlisten = '127.0.0.1:50551'\n[http]\nlisten = 'localhost:50551'",
        ["http.listen", "own port"],
    ),
    "a file of targets that is relative": (
        "[http]\ntargets_file = 'targets.json'", ["http.targets_file", "absolute"],
    ),
    "a file of targets that Prometheus does not read": (
        "[http]\ntargets_file = '/run/targets'", ["http.targets_file", "does not end in .json"],
    ),
    "a label that dcgm-exporter never had": (
        "[http]\ndcgm_hostname_label = 'host'", ["dcgm_hostname_label"],
    ),
    "relative state": ("[node]\nstate_dir = 'state'", ["node.state_dir", "absolute"]),
    "relative socket": ("[server]\nsocket = 'gpud.sock'", ["server.socket", "absolute"]),
    "long socket": (f"[server]\nsocket = '/{'s' * 120}'", ["server.socket", "107"]),
    "socket over the state": (
        "[node]\nstate_dir = '/a/b'\n[server]\nsocket = '/a/b'", ["server.socket"],
    ),
    "relative root": ("[models]\nroots = ['models']", ["models.roots", "absolute"]),
    "model without a path": ("[models.a]\ncontext_length = 5", ["path"]),
    "model's name": ("[models.'A B']\npath = 'a'", ["models.A B", "lower-case"]),
    "model that is no table": ("[models]\na = 5", ["models.a", "[models.NAME]"]),
    "engine": ("[models.a]\npath = 'a'\nengine = 'onnx'", ["models.a.engine", "llama_cpp"]),
    "cache type": ("[models.a]\npath = 'a'\ncache_type_k = 'q1'", ["models.a.cache_type_k"]),
    "flags of vLLM": (
        "[engines.vllm]\ncommand = ['vllm', 'serve', '--trust-remote-code']",
        ["engines.vllm.command", "extra_args"],
    ),
    "no command of vLLM": ("[engines.vllm]\ncommand = []", ["engines.vllm.command"]),
    "impatience with vLLM": (
        "[engines.vllm]\nload_stall = '1ms'", ["engines.vllm.load_stall", "100ms"],
    ),
    "a watch without end": ("[health]\nwatch = '1ms'", ["health.watch", "0.01"]),
    "impatient with a stuck one": ("[health]\nstuck = '10ms'", ["health.stuck", "0.1"]),
    "pauses that shrink": (
        "[health]\nbackoff_first = '10m'", ["health.backoff_first", "health.backoff_most, 300 s"],
    ),
    "a breaker that is never closed": ("[health]\nbreaker_failures = 0", ["breaker_failures"]),
    "unknown key of health": ("[health]\nwatsh = '1s'", ["watsh", "did you mean `watch`"]),
    "idle for no time": (
        "[models.a]\npath = 'a'\nidle_ttl = '100ms'", ["models.a.idle_ttl", "leave it out"],
    ),
    "restart": ("[models.a]\npath = 'a'\nrestart = 'often'", ["restart", "often"]),
    "no TOML": ("[node\n", ["as TOML"]),
    "no UTF-8": ("\udcff", ["as TOML"]),
    "too large": ("#" * 70_000, ["larger than 65536"]),
    "hostile keys": ("a." * 3_000 + "b = 1", []),
}  # fmt: skip


@pytest.mark.parametrize(("text", "told"), WRONG.values(), ids=WRONG)
def test_one_line_names_the_key_and_the_fix(tmp_path: Path, text: str, told: list[str]) -> None:
    path = tmp_path / "gpud.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigInvalid) as caught:
        load(path, {})
    words = str(caught.value)
    assert words.startswith("cannot ")
    assert "\n" not in words
    assert len(words) < 700
    for part in told:
        assert part in words


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"cannot read .*none\.toml: no such file.*--config"):
        load(tmp_path / "none.toml", {})


def test_what_is_not_said_has_a_default() -> None:
    config = load(None, {})
    assert config.sampling.interval == 1.0
    assert config.policy.reserve_system_memory == 2 * GIB


def test_drop_ins_come_after_the_file_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "gpud.toml").write_text("[sampling]\ninterval = '1s'\nprocesses_every = 7\n")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "20.toml").write_text("[sampling]\ninterval = '3s'\n")
    (tmp_path / "conf.d" / "10.toml").write_text(
        "[sampling]\ninterval = '2s'\n[devices]\nhost=false"
    )
    (tmp_path / "conf.d" / "30.ignored").write_text("not TOML")
    config = load(tmp_path / "gpud.toml", {})
    assert (config.sampling.interval, config.sampling.processes_every) == (3.0, 7)
    assert not config.devices.host


def test_a_wrong_drop_in_is_named(tmp_path: Path) -> None:
    (tmp_path / "gpud.toml").write_text("")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "10.toml").write_text("[")
    with pytest.raises(ConfigInvalid, match=r"10\.toml"):
        load(tmp_path / "gpud.toml", {})


def test_the_environment_has_the_last_word(tmp_path: Path) -> None:
    path = tmp_path / "gpud.toml"
    path.write_text("[sampling]\ninterval = '1s'\n")
    environment = {
        "GPUD_SAMPLING__INTERVAL": "250ms",
        "GPUD_SAMPLING__PROCESSES_EVERY": "9",
        "GPUD_DEVICES__HOST": "false",
        "GPUD_RESERVATION": "r-1",  # not ours: one underscore
        "OTHER__KEY": "1",
    }
    config = load(path, environment)
    assert config.sampling.interval == 0.25
    assert config.sampling.processes_every == 9
    assert not config.devices.host
    with pytest.raises(ConfigInvalid, match="intervall"):
        load(path, {"GPUD_SAMPLING__INTERVALL": "1s"})
    with pytest.raises(ConfigInvalid, match=r"sampling\.interval"):
        load(path, {"GPUD_SAMPLING__INTERVAL": "1h"})


def test_a_relative_scenario_is_beside_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "etc"
    (folder / "conf.d").mkdir(parents=True)
    (folder / "gpud.toml").write_text("[devices]\nscenario = 'scenario.json'\n")
    monkeypatch.chdir(tmp_path)
    beside = str(folder / "scenario.json")
    assert load(Path("etc/gpud.toml"), {}).devices.scenario == beside
    (folder / "conf.d" / "10.toml").write_text("[devices]\nscenario = '/run/cards.json'\n")
    assert load(folder / "gpud.toml", {}).devices.scenario == "/run/cards.json"
    (folder / "conf.d" / "10.toml").write_text("[devices]\nscenario = ''\n")
    assert load(folder / "gpud.toml", {}).devices.scenario == ""


def test_certificates_are_beside_the_file_too(tmp_path: Path) -> None:
    (tmp_path / "gpud.toml").write_text(
        f"[tls]\n{PAIR}client_ca = '/etc/ca.pem'\n[access]\ndenied = 'denied'\n"
    )
    config = load(tmp_path / "gpud.toml", {})
    assert config.tls.certificate == str(tmp_path / "a")
    assert config.tls.key == str(tmp_path / "b")
    assert config.tls.client_ca == "/etc/ca.pem"
    assert config.access.denied == str(tmp_path / "denied")


@pytest.mark.parametrize(
    "text",
    [
        f"[tls]\n{PAIR}client_ca = 'c'\n[identities]\n'spiffe://a/b' = 'admin'\n",
        f"[tls]\n{PAIR}\n{TOKEN}",
    ],
    ids=["client certificates", "tokens"],
)
@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "10.0.0.5", "gpu1.fleet.test", "127.0.0.1"])
def test_where_callers_prove_who_they_are_any_address_is_served(
    tmp_path: Path, text: str, host: str
) -> None:
    (tmp_path / "gpud.toml").write_text(f"[server]\nlisten = '{host}:50551'\n{text}")
    assert load(tmp_path / "gpud.toml", {}).server.listen == f"{host}:50551"


# The program itself.


def refused(daemon: Gpud, **environment: str) -> str:
    """Run it on its present file; the one line that it ends with."""
    ended = subprocess.run(
        [sys.executable, "-m", "gpud", "run", "--config", str(daemon.config)],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert ended.returncode == 2, ended.stderr
    assert ended.stdout == ""
    *logged, last = ended.stderr.splitlines()
    assert last.startswith("gpud: cannot ")
    assert not [line for line in logged if "Traceback" in line]
    assert not logged, logged
    return last


@pytest.fixture
def daemon(gpud: Callable[..., Gpud]) -> Gpud:
    made = gpud(cards=1)
    made.write_config()
    return made


def test_gpud_run_ends_with_the_line_and_starts_nothing(daemon: Gpud) -> None:
    daemon.config.write_text(daemon.config.read_text() + "[polici]\n")
    assert "did you mean `policy`" in refused(daemon)
    assert not daemon.state.exists()
    assert not daemon.socket.exists()


def test_gpud_run_without_its_file(daemon: Gpud) -> None:
    daemon.config.unlink()
    assert "no such file" in refused(daemon)


def test_a_wrong_variable(daemon: Gpud) -> None:
    assert "sampling.interval" in refused(daemon, GPUD_SAMPLING__INTERVAL="1h")


def test_a_second_daemon_on_the_same_state(daemon: Gpud) -> None:
    daemon.start()
    first = daemon.config.read_text()
    daemon.config.write_text(first.replace("gpud.sock", "other.sock"))
    assert "another gpud holds it" in refused(daemon)
    assert not (daemon.directory / "other.sock").exists()
    assert daemon.stop() == 0  # the first one never noticed


def test_a_socket_where_another_answers(daemon: Gpud, gpud: Callable[..., Gpud]) -> None:
    daemon.start()
    second = gpud(cards=1)
    second.write_config()
    second.config.write_text(
        second.config.read_text().replace(str(second.socket), str(daemon.socket))
    )
    assert "another server answers there" in refused(second)
    assert daemon.socket.is_socket()
    assert daemon.stop() == 0


def test_a_socket_that_nobody_answers_is_taken(daemon: Gpud) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(daemon.socket))
    daemon.start()
    assert daemon.stop() == 0


def test_a_file_where_the_socket_should_be(daemon: Gpud) -> None:
    daemon.socket.write_text("precious")
    assert "a file is there" in refused(daemon)
    assert daemon.socket.read_text() == "precious"


def test_a_state_directory_of_another_program(daemon: Gpud) -> None:
    """A health monitor of the same name keeps its files under /var/lib/gpud too."""
    daemon.state.mkdir()
    (daemon.state / "gpud.state").write_text("theirs")
    assert "not gpud's" in refused(daemon)
    assert os.listdir(daemon.state) == ["gpud.state"]


def test_a_state_directory_that_cannot_be_made(daemon: Gpud) -> None:
    daemon.state.write_text("a file")
    assert "node.state_dir" in refused(daemon)


def test_a_state_of_a_newer_gpud(daemon: Gpud) -> None:
    daemon.start()
    daemon.stop()
    with sqlite3.connect(daemon.state / "state.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert "newer gpud" in refused(daemon)


def test_an_address_that_is_taken(daemon: Gpud) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert "server.listen" in refused(daemon, GPUD_SERVER__LISTEN=f"127.0.0.1:{port}")


def test_check_show_and_schema_start_nothing(daemon: Gpud) -> None:
    def said(*command: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "gpud", "config", *command],
            capture_output=True, text=True, timeout=60, check=True,
        ).stdout  # fmt: skip

    assert "valid" in said("check", "--config", str(daemon.config))
    assert '"processes_every": 2' in said("show", "--config", str(daemon.config))
    assert '"properties"' in said("schema")
    assert not daemon.state.exists()
