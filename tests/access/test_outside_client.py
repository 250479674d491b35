"""A client that gpud knows nothing of: `buf curl`, with certificates, by reflection alone."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from tests.access.fleet import TOKEN, Fleet, fleet, uri
from tests.running import GIB

ROOT = Path(__file__).parents[2]
BUF = Path(sys.executable).parent / "buf"
PATIENCE_SECONDS = 60
RESERVE = "ReservationService/Reserve"

pytestmark = pytest.mark.skipif(not BUF.exists(), reason="buf is not installed beside Python")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("outside")) as made:
        yield made


def curl(
    place: Fleet, name: str, method: str, body: dict[str, Any] | None = None, *more: str
) -> subprocess.CompletedProcess[str]:
    """As the client `name`; "" shows no certificate. It is told no schema."""
    pair = f"--cert clients/{name}.pem --key clients/{name}-key.pem".split() if name else []
    url = f"https://127.0.0.1:{place.port}/gpud.v1.{method}"
    environment = {**os.environ, "BUF_CACHE_DIR": str(place.gpud.directory / "buf")}
    return subprocess.run(
        [str(BUF), "curl", "--protocol", "grpc", "--cacert", "ca.pem", *pair,
         "--data", json.dumps(body or {}), *more, url],
        cwd=place.folder, env=environment, capture_output=True, text=True,
        timeout=PATIENCE_SECONDS,
    )  # fmt: skip


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refusal(
    done: subprocess.CompletedProcess[str],
) -> tuple[grpc.StatusCode, str, error_details_pb2.ErrorInfo]:
    """The code, the sentence, and the facts beside it."""
    (code,) = (each for each in grpc.StatusCode if each.value[0] << 3 == done.returncode)
    told = json.loads(done.stderr)
    info = error_details_pb2.ErrorInfo()
    (detail,) = (each for each in told["details"] if each["type"] == "google.rpc.ErrorInfo")
    info.ParseFromString(base64.b64decode(detail["value"] + "=="))
    return code, told["message"], info


def test_it_learns_the_api_and_who_it_is(place: Fleet) -> None:
    told = answer(curl(place, "watcher", "NodeService/GetNode"))
    assert told["node"]["state"] == "NODE_STATE_READY"
    assert told["caller"] == {
        "name": uri("watcher"), "role": "ROLE_VIEWER", "proof": "certificate"
    }  # fmt: skip


def test_it_reserves_as_whom_its_certificate_names(place: Fleet) -> None:
    body = {"bytes": str(GIB), "devices": ["gpu0"], "ttl": "60s", "owner": uri("bert")}
    made = answer(curl(place, "anna", RESERVE, body))["reservation"]
    assert (made["state"], made["owner"]) == ("RESERVATION_STATE_GRANTED", uri("anna"))
    # Another one may not end it, and learns no more than that.
    release = "ReservationService/Release"
    code, message, info = refusal(curl(place, "bert", release, {"name": made["name"]}))
    assert (code, info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_OWNER")
    assert uri("anna") not in message
    assert uri("anna") not in str(info)
    ended = answer(curl(place, "anna", release, {"name": made["name"]}))
    assert ended["reservation"]["state"] == "RESERVATION_STATE_RELEASED"


def test_a_refusal_names_the_right_that_is_missing(place: Fleet) -> None:
    code, message, info = refusal(curl(place, "watcher", RESERVE, {"bytes": str(GIB)}))
    assert code == grpc.StatusCode.PERMISSION_DENIED
    assert message.startswith(f"cannot call {RESERVE}: it needs the role operator")
    assert (info.domain, info.reason) == ("gpud", "ROLE_MISSING")
    assert dict(info.metadata) == {"method": RESERVE, "role": "viewer", "required": "operator"}


def test_a_refusal_for_want_of_memory_brings_its_numbers(place: Fleet) -> None:
    body = {"bytes": str(100 * GIB), "devices": ["gpu0"]}
    code, message, info = refusal(curl(place, "anna", RESERVE, body))
    assert (code, info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "VRAM_INSUFFICIENT")
    assert message.startswith("cannot promise 100 GiB")
    assert int(info.metadata["gpu0.total_bytes"]) < 100 * GIB


def test_a_token_says_who_calls_where_both_are_shown(place: Fleet) -> None:
    header = ("--header", f"Authorization: Bearer {TOKEN}")
    told = answer(curl(place, "watcher", "NodeService/GetNode", None, *header))
    assert told["caller"] == {"name": "ci", "role": "ROLE_OPERATOR", "proof": "token"}


def test_without_a_certificate_it_learns_nothing(place: Fleet) -> None:
    # The schema in hand, for without an answer to reflection it would not even ask.
    ask = ("NodeService/GetNode", None, "--schema", str(ROOT / "proto"), "--reflect=false")
    assert answer(curl(place, "watcher", *ask))["caller"]["role"] == "ROLE_VIEWER"
    done = curl(place, "", *ask)
    assert (done.returncode != 0, done.stdout) == (True, "")
