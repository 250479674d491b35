"""Two hosts on one wire: a coordinator on the other one reserves, loads, watches, is cut off."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.running import Gpud

CARDS, DESK = "10.77.0.1", "10.77.0.2"
PORT = 50551  # what `gpud tls init` writes
COORDINATOR, DASHBOARD = "spiffe://fleet/coordinator", "spiffe://fleet/dashboard"
GPUCTL = (sys.executable, "-c", "from gpuctl.main import main; main()")
PATIENCE_SECONDS = 60.0
# Who is denied is seen within a second, and cut then.
CUT_SECONDS = 60.0
PERMISSION_DENIED, UNAVAILABLE = 71, 78
TOOLS = ("ip", "nsenter", "unshare")

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces"),
    pytest.mark.skipif(
        any(shutil.which(tool) is None for tool in TOOLS), reason=f"needs {', '.join(TOOLS)}"
    ),
]


@dataclass(frozen=True, kw_only=True)
class Host:
    """A network and a host name of its own, for as long as the process `pid` lives."""

    pid: int
    folder: Path

    @property
    def entering(self) -> tuple[str, ...]:
        return ("nsenter", "--target", str(self.pid), "--net", "--uts")

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("GPUCTL_")}
        return {**kept, "XDG_CONFIG_HOME": str(self.folder / "config")}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.entering, *words],
            env=self.environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS,
        )  # fmt: skip

    def gpuctl(self, *words: str, code: int = 0) -> str:
        """What it answered, or told where it was to be refused: it must end with `code`."""
        done = self.run(*GPUCTL, *words)
        assert done.returncode == code, f"gpuctl {words}: {done}"
        return done.stderr if code else done.stdout

    def ask(self, *words: str) -> Any:
        return json.loads(self.gpuctl(*words, "-o", "json"))

    @contextlib.contextmanager
    def watching(self) -> Iterator[subprocess.Popen[str]]:
        """`gpuctl watch` whose first snapshot has come; a line of `stdout` is one."""
        words = [*self.entering, *GPUCTL, "watch", "--interval", "100ms", "-o", "jsonl"]
        with subprocess.Popen(
            words, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as watch:
            try:
                assert watch.stdout is not None
                assert json.loads(watch.stdout.readline())["devices"]
                yield watch
            finally:
                watch.kill()


@contextlib.contextmanager
def host(name: str, folder: Path) -> Iterator[Host]:
    """One that is gone with this process, however it ends: it lives as long as its stdin."""
    folder.mkdir()
    script = f"hostname {name} && ip link set lo up && echo up && exec cat"
    with subprocess.Popen(
        ["unshare", "--net", "--uts", "sh", "-c", script],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as holder:  # fmt: skip
        assert holder.stdout is not None
        if holder.stdout.readline() != "up\n":
            pytest.skip(f"no network namespace here: {holder.communicate()[1].strip()}")
        yield Host(pid=holder.pid, folder=folder)


def wire(one: Host, other: Host) -> None:
    ends = (f"lan0 netns {one.pid} type veth peer name lan0 netns {other.pid}").split()
    made = subprocess.run(["ip", "link", "add", "name", *ends], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no pair of network cards here: {made.stderr.strip()}")
    for each, address in ((one, CARDS), (other, DESK)):
        for words in (f"ip addr add {address}/24 dev lan0", "ip link set lan0 up"):
            assert each.run(*words.split()).returncode == 0


@dataclass(frozen=True, kw_only=True)
class Lan:
    """gpud on the host with the cards, and a desk that has the files of two clients."""

    gpud: Gpud
    cards: Host
    desk: Host

    @property
    def denied(self) -> Path:
        return self.gpud.directory / "denied"

    def certify(self) -> None:
        """`gpud tls init` on the one, the files it names for a client on the other."""
        made = self.cards.run(
            sys.executable, "-m", "gpud", "tls", "init", str(self.gpud.directory / "tls"),
            "--server", CARDS, "--client", f"coordinator={COORDINATOR}",
            "--client", f"dashboard={DASHBOARD}",
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        drop_ins = self.gpud.directory / "conf.d"
        drop_ins.mkdir()
        operator, viewer = (f'"{DASHBOARD}" = "{role}"' for role in ("operator", "viewer"))
        (drop_ins / "remote.toml").write_text(made.stdout.replace(operator, viewer))
        for file in (self.gpud.directory / "tls/ca.pem", *self.clients()):
            shutil.copy2(file, self.desk.folder)

    def clients(self) -> list[Path]:
        return sorted((self.gpud.directory / "tls/clients").iterdir())

    def add_context(self, name: str, *more: str) -> None:
        folder = self.desk.folder
        self.desk.gpuctl(
            "context", "add", name, "--address", f"{CARDS}:{PORT}",
            "--ca", str(folder / "ca.pem"), "--cert", str(folder / f"{name}.pem"),
            "--key", str(folder / f"{name}-key.pem"), *more,
        )  # fmt: skip

    def as_admin(self, *words: str) -> Any:
        """On the host itself, by the socket."""
        return self.cards.ask("--address", self.gpud.address, *words)

    def deny(self, name: str) -> None:
        self.denied.write_text(f"{name}  # left the fleet\n")

    def audited(self, method: str) -> list[dict[str, Any]]:
        """Lines of the audit; whole, for a daemon that has stopped has written all of them."""
        lines = (self.gpud.state / "audit.jsonl").read_text().splitlines()
        return [each for each in map(json.loads, lines) if each["method"] == method]


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[Lan]:
    """gpud not yet started, certificates made."""
    with host("cards", tmp_path / "cards") as cards, host("desk", tmp_path / "desk") as desk:
        wire(cards, desk)
        gpud = Gpud(directory=cards.folder, under=cards.entering)
        made = Lan(gpud=gpud, cards=cards, desk=desk)
        made.denied.write_text("")
        gpud.extra = f'[access]\ndenied = "{made.denied}"\n'
        made.certify()
        try:
            yield made
        finally:
            gpud.end()


def test_a_coordinator_on_another_host_reserves_watches_and_is_cut_off(lan: Lan) -> None:
    lan.gpud.start()
    lan.add_context("coordinator", "--use")
    assert "cards  gpud" in lan.desk.gpuctl("status")
    granted = lan.desk.ask("reserve", "--vram", "4GiB", "--device", "gpu0", "--ttl", "10m")
    assert granted["owner"] == COORDINATOR
    with lan.desk.watching() as watch:
        lan.deny(COORDINATOR)
        _, told = watch.communicate(timeout=CUT_SECONDS)
        assert watch.returncode == PERMISSION_DENIED
    assert "withdrawn" in told
    assert "withdrawn" in lan.desk.gpuctl("status", code=PERMISSION_DENIED)
    lan.desk.gpuctl("release", granted["name"], code=PERMISSION_DENIED)
    # What it held stays its own until it ends; an admin may end it.
    (held,) = lan.as_admin("reservations")["reservations"]
    assert (held["state"], held["owner"]) == ("RESERVATION_STATE_GRANTED", COORDINATOR)
    lan.as_admin("release", granted["name"])
    lan.gpud.stop()
    reserved, (cut,) = (
        lan.audited("ReservationService/Reserve"),
        lan.audited("TelemetryService/WatchSnapshots"),
    )
    assert [(each["name"], each["outcome"]) for each in reserved] == [(COORDINATOR, "OK")]
    assert (cut["name"], cut["reason"]) == (COORDINATOR, "ACCESS_WITHDRAWN")
    assert {each["origin"].rpartition(":")[0] for each in (*reserved, cut)} == {f"ipv4:{DESK}"}


def test_a_viewer_on_another_host_reads_and_its_refusals_are_audited(lan: Lan) -> None:
    lan.gpud.start()
    lan.add_context("dashboard", "--use")
    assert lan.desk.ask("devices")["devices"]
    told = lan.desk.gpuctl("reserve", "--vram", "1GiB", code=PERMISSION_DENIED)
    assert "it needs the role operator, and yours is viewer" in told
    lan.gpud.stop()
    (line,) = lan.audited("ReservationService/Reserve")
    assert (line["outcome"], line["reason"]) == ("PERMISSION_DENIED", "ROLE_MISSING")
    assert (line["name"], line["role"]) == (DASHBOARD, "viewer")
    assert line["origin"].startswith(f"ipv4:{DESK}:")


def test_who_has_no_certificate_gets_no_answer_over_the_wire(lan: Lan) -> None:
    lan.gpud.start()
    address = f"{CARDS}:{PORT}"
    lan.desk.gpuctl("status", "--address", address, code=UNAVAILABLE)
    ca = str(lan.desk.folder / "ca.pem")
    lan.desk.gpuctl("context", "add", "nobody", "--address", address, "--ca", ca, "--use")
    lan.desk.gpuctl("status", code=UNAVAILABLE)


@pytest.mark.engine
def test_a_model_that_a_coordinator_loaded_goes_on_when_it_is_cut_off(
    lan: Lan, llama_server: Path, tiny_model: Path
) -> None:
    lan.gpud.extra += (
        f'[engines.llama_cpp]\nbinary = "{llama_server}"\n'
        f'[models]\nroots = ["{tiny_model.parent}"]\n'
        '[models.tiny]\npath = "tiny.gguf"\ncontext_length = 512\nparallel = 1\n'
    )
    lan.gpud.start()
    lan.add_context("coordinator", "--use")
    loaded = lan.desk.ask("load", "tiny", "--device", "host")
    assert loaded["state"] == "INSTANCE_STATE_READY"
    with lan.desk.watching() as watch:
        lan.deny(COORDINATOR)
        watch.communicate(timeout=CUT_SECONDS)
        assert watch.returncode == PERMISSION_DENIED
    lan.desk.gpuctl("unload", "tiny", code=PERMISSION_DENIED)
    (instance,) = lan.as_admin("instances")["instances"]
    assert (instance["state"], instance["pid"]) == (loaded["state"], loaded["pid"])
    lan.as_admin("unload", "tiny")
    lan.gpud.stop()
    (line,) = lan.audited("InstanceService/LoadModel")
    assert (line["name"], line["outcome"]) == (COORDINATOR, "OK")
