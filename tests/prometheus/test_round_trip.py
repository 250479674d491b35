"""What gpud tells, as Prometheus has it."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path

from tests.prometheus.conftest import Scraped
from tests.running import GIB


def test_every_target_is_up(scraped: Scraped) -> None:
    jobs = {"gpud", "gpud-dcgm", "gpud-engines", "file", "voice"}
    for job in jobs:
        scraped.until(f'up{{job="{job}"}} == 1')
    health = {
        each["labels"]["job"]: (each["health"], each["lastError"])
        for each in scraped.ask("targets", state="active")["activeTargets"]
    }
    assert health == dict.fromkeys(jobs, ("up", ""))


def test_the_values_are_those_that_gpud_tells(scraped: Scraped) -> None:
    (card,) = scraped.query('gpud_gpu_temperature_celsius{device="gpu0"}')
    assert float(card["value"][1]) == 70
    (used,) = scraped.query('gpud_gpu_utilization_ratio{device="gpu0"}')
    assert float(used["value"][1]) == 0.9
    (xid,) = scraped.query("gpud_gpu_xid_errors_total")
    assert (xid["metric"]["device"], xid["metric"]["xid"]) == ("gpu0", "31")
    (held,) = scraped.query('gpud_device_granted_bytes{device="gpu0",owner_kind="lease"}')
    assert int(held["value"][1]) == 1 << 30
    (waits,) = scraped.query('sum(gpud_queue_depth{job="gpud"})')
    assert waits["value"][1] == "1"
    (refused,) = scraped.query(
        'grpc_server_handled_total{grpc_method="Reserve",grpc_code="RESOURCE_EXHAUSTED"}'
    )
    assert refused["value"][1] == "1"


def test_an_engine_is_found_and_told_by_both_sides_alike(scraped: Scraped) -> None:
    name = scraped.engine.name.removeprefix("instances/")
    (target,) = scraped.query('up{job="gpud-engines"}')
    assert target["metric"] == {
        "__name__": "up",
        "job": "gpud-engines",
        "instance": name,
        "model": "chat",
        "engine": "llama_cpp",
        "devices": "host",
    }
    of = f'instance_id="{name}",model="chat",engine="llama_cpp",service="voice"'
    (own,) = scraped.until('llamacpp:tokens_predicted_total{job="gpud-engines"} > 15')
    counted = f"gpud_model_generated_tokens_total{{{of}}} >= {own['value'][1]}"
    assert scraped.until(counted)


def test_the_file_of_targets_says_the_same_as_the_page(scraped: Scraped) -> None:
    path = scraped.gpud.directory / "targets.json"
    assert json.loads(path.read_text()) == json.loads(scraped.get("/sd/prometheus"))


def test_a_service_has_a_page_of_its_own(scraped: Scraped) -> None:
    for name in ("batch_queue_size", "model_loading_time", "gpu_memory_used_bytes"):
        assert scraped.until(f'{name}{{job="voice",service="voice"}}'), name
    (reserved,) = scraped.query("reserved_bytes")
    (own,) = scraped.query('gpud_model_footprint_bytes{service="voice"}')
    assert int(reserved["value"][1]) == GIB + int(own["value"][1])
    assert "/metrics/voice" in scraped.get("/").split()
    assert scraped.get("/metrics/chat").startswith("# HELP ")
    told = scraped.get("/metrics/nobody")
    assert told.startswith('there is no service "nobody"; there are: voice.'), told


def test_no_rule_fails_and_none_fires_that_should_not(scraped: Scraped) -> None:
    scraped.until("gpud:device_slack:bytes")
    groups = scraped.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    assert [rule.get("lastError", "") for rule in rules if rule["health"] != "ok"] == []
    # The scenario's Xid and heat, and what gpud advises for that.
    expected = {"GpudXid", "GpudTemperatureHigh", "GpudAlert"}
    for name in expected:
        scraped.until(f'ALERTS{{alertname="{name}",alertstate="firing"}}')
    (advice,) = scraped.until('ALERTS{alertname="GpudAlert",rule="verdict",alertstate="firing"}')
    assert advice["metric"]["severity"] == "warning"
    # The host may be short of RAM.
    firing = {each["labels"]["alertname"] for each in scraped.ask("alerts")["alerts"]}
    assert firing <= expected | {"GpudHostMemoryStalls"}


def test_probes_and_unknown_places(scraped: Scraped) -> None:
    assert scraped.get("/healthz") == "ok\n"
    assert scraped.get("/readyz") == "ready\n"
    assert scraped.get("/nowhere").startswith("there are /, /healthz, /readyz, /metrics")


def test_clients_without_manners_keep_nobody_out(scraped: Scraped) -> None:
    address = ("127.0.0.1", scraped.gpud_port)
    with contextlib.ExitStack() as silent:
        for _ in range(200):
            silent.enter_context(socket.create_connection(address)).sendall(b"GET /met")
        assert scraped.get("/healthz") == "ok\n"
        with socket.create_connection(address, timeout=60) as greedy:
            greedy.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * 9000)
            assert greedy.recv(1000).startswith(b"HTTP/1.1 431 ")
        assert scraped.get("/metrics").endswith("\n")


def test_the_log_of_gpud_has_no_bug(scraped: Scraped) -> None:
    assert "http.bug" not in scraped.gpud.log
    assert Path(scraped.gpud.directory / "prometheus.log").read_text().count("level=error") == 0
