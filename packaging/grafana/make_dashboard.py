"""Writes gpud.json beside it: the dashboard as Grafana imports or provisions it.

    python packaging/grafana/make_dashboard.py

A panel is a line here and forty there. A test compares the two, and asks a real Prometheus that
scrapes a real gpud every expression.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PLACE = Path(__file__).with_name("gpud.json")
SOURCE = {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}
# Grafana 10.4; newer ones move it on by themselves.
SCHEMA_VERSION = 39
WIDTH = 24

NODE = 'instance=~"$instance"'
CARD = f'{NODE},device=~"$gpu"'
MODEL = f'{NODE},model=~"$model"'


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: queries as (expression, legend); `unit` as Grafana names it."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = 7
    stacked: bool = False
    most: float | None = None
    says: str = ""


def _stat(title: str, expression: str, unit: str = "short") -> Panel:
    return Panel(title, ((expression, ""),), unit, kind="stat", width=4, height=4)


def _one(title: str, expression: str, legend: str, unit: str = "short", **more: Any) -> Panel:
    return Panel(title, ((expression, legend),), unit, **more)


def _of_cards(title: str, metric: str, unit: str, **more: Any) -> Panel:
    return Panel(title, ((f"{metric}{{{CARD}}}", "{{instance}} {{device}}"),), unit, **more)


def _of_models(title: str, metric: str, unit: str, **more: Any) -> Panel:
    legend = "{{model}} {{instance_id}}"
    return Panel(title, ((f"{metric}{{{MODEL}}}", legend),), unit, **more)


def _latency(title: str, name: str) -> Panel:
    return Panel(
        title,
        tuple(
            (
                f"gpud_model_{name}_{each}_seconds{{{MODEL}}}",
                f"{each} {{{{model}}}} {{{{source}}}}",
            )
            for each in ("p50", "p99")
        ),
        "s",
        says="Where an engine has no histogram (llama-server) it is our newest benchmark's.",
    )


ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "At a glance",
        (
            _stat("Nodes that are ready", f'sum(gpud_node_state{{{NODE},state="ready"}})'),
            _stat("Cards", f"count(gpud_gpu_memory_total_bytes{{{CARD}}})"),
            _stat(
                "Could be promised now",
                f'sum(gpud_device_grantable_bytes{{{CARD},device!="host"}})',
                "bytes",
            ),
            _stat("Power", f"sum(gpud_gpu_power_watts{{{CARD}}})", "watt"),
            _stat("Instances that serve", f'sum(gpud_instances{{{NODE},state="ready"}})'),
            _stat(
                "Alerts",
                f'sum(gpud_alerts{{{NODE},state="firing"}}) or vector(0)',
            ),
        ),
    ),
    (
        "Cards",
        (
            _of_cards("Utilization", "gpud_gpu_utilization_ratio", "percentunit", most=1),
            _one(
                "Memory in use",
                f"gpud_gpu_memory_used_bytes{{{CARD}}} / gpud_gpu_memory_total_bytes",
                "{{instance}} {{device}}",
                "percentunit",
                most=1,
            ),
            _of_cards("Temperature", "gpud_gpu_temperature_celsius", "celsius"),
            _of_cards("Power", "gpud_gpu_power_watts", "watt"),
            _of_cards("Clock", "gpud_gpu_sm_clock_hertz", "hertz"),
            _one(
                "Clocks held down, why",
                f'sum by (reason) (gpud_gpu_throttle_active{{{CARD},reason!="idle"}})',
                "{{reason}}",
            ),
            _one(
                "Xids",
                f"sum by (instance, device, xid) (gpud_gpu_xid_errors_total{{{CARD}}})",
                "{{device}} Xid {{xid}}",
                says="Errors that the driver reported since gpud started, by number.",
            ),
            Panel(
                "Heat and pressure bands",
                (
                    (f"gpud_device_thermal{{{CARD}}}", "heat {{device}}"),
                    (f"gpud_device_pressure{{{CARD}}}", "pressure {{device}}"),
                ),
                most=4,
                says="1 normal (low) … 4 critical.",
            ),
            _one(
                "Not healthy",
                "sum by (instance, device, health) (gpud_device_health"
                f'{{{CARD},health!="healthy"}})',
                "{{device}} {{health}}",
            ),
        ),
    ),
    (
        "Promises",
        (
            Panel(
                "What the bytes are",
                (
                    (f"sum(gpud_device_charged_bytes{{{CARD}}})", "promised"),
                    (f"sum(gpud_device_foreign_bytes{{{CARD}}})", "foreign"),
                    (f"sum(gpud_device_unattributed_bytes{{{CARD}}})", "unattributed"),
                    (f"sum(gpud_device_leaked_bytes{{{CARD}}})", "leaked"),
                    (f"sum(gpud_device_reserve_bytes{{{CARD}}})", "reserve"),
                    (f"sum(gpud_device_grantable_bytes{{{CARD}}})", "grantable"),
                ),
                "bytes",
                stacked=True,
            ),
            _one(
                "Promised to",
                f"sum by (owner_kind) (gpud_device_granted_bytes{{{CARD}}})",
                "{{owner_kind}}",
                "bytes",
                stacked=True,
            ),
            Panel(
                "Promised and used",
                (
                    (f"gpud_device_charged_bytes{{{CARD}}}", "promised {{device}}"),
                    (f"gpud_device_observed_bytes{{{CARD}}}", "used {{device}}"),
                ),
                "bytes",
            ),
            _one(
                "Reservations",
                f"sum by (state) (gpud_reservations{{{NODE}}})",
                "{{state}}",
                stacked=True,
            ),
            _one(
                "Queue",
                f"sum by (priority) (gpud_queue_depth{{{NODE}}})",
                "{{priority}}",
                stacked=True,
            ),
            _one(
                "Longest wait",
                f"gpud_queue_oldest_wait_seconds{{{NODE}}}",
                "{{instance}}",
                "s",
            ),
        ),
    ),
    (
        "Models",
        (
            _of_models("Tokens generated", "gpud_model_generated_tokens_per_second", "short"),
            Panel(
                "Requests",
                (
                    (f"gpud_model_requests_running{{{MODEL}}}", "running {{model}}"),
                    (f"gpud_model_requests_waiting{{{MODEL}}}", "waiting {{model}}"),
                ),
            ),
            _one(
                "Tokens, by service",
                "sum by (service) (rate(gpud_model_generated_tokens_total"
                f"{{{MODEL}}}[$__rate_interval]))",
                "{{service}}",
            ),
            _latency("Time to the first token", "time_to_first_token"),
            _latency("Time of a request", "request"),
            _of_models("KV cache in use", "gpud_model_kv_cache_used_ratio", "percentunit", most=1),
            _of_models("Requests that fail", "gpud_model_error_ratio", "percentunit"),
            _of_models("Load time", "gpud_model_load_duration_seconds", "s"),
            _of_models("Restarts", "gpud_model_restarts_total", "short"),
        ),
    ),
    (
        "Host",
        (
            Panel(
                "CPU and memory",
                (
                    (f"gpud_host_cpu_utilization_ratio{{{NODE}}}", "CPU {{instance}}"),
                    (
                        f"1 - gpud_host_memory_available_bytes{{{NODE}}}"
                        " / gpud_host_memory_total_bytes",
                        "RAM {{instance}}",
                    ),
                ),
                "percentunit",
                most=1,
            ),
            _one(
                "Waiting (PSI)",
                f'gpud_host_pressure_stall_ratio{{{NODE},tasks="some"}}',
                "{{instance}} {{resource}}",
                "percentunit",
            ),
            _one(
                "Disk left",
                f"gpud_host_disk_free_bytes{{{NODE}}} / gpud_host_disk_total_bytes",
                "{{instance}} {{path}}",
                "percentunit",
                most=1,
            ),
            Panel(
                "Memory pressure events",
                (
                    (
                        f"increase(gpud_host_memory_pressure_events_total{{{NODE}}}"
                        "[$__rate_interval])",
                        "{{instance}}",
                    ),
                    (
                        f"increase(gpud_device_memory_pressure_events_total{{{CARD}}}"
                        "[$__rate_interval])",
                        "{{instance}} {{device}}",
                    ),
                ),
                says="Of the host: stalls, swap, cgroup. Of a device: it got critically full.",
            ),
        ),
    ),
    (
        "gpud itself",
        (
            _one(
                "Calls per second",
                "sum by (grpc_method) (rate(grpc_server_handled_total"
                f"{{{NODE}}}[$__rate_interval]))",
                "{{grpc_method}}",
                "reqps",
            ),
            _one(
                "Calls refused or broken",
                "sum by (grpc_method, grpc_code) (rate(grpc_server_handled_total"
                f'{{{NODE},grpc_code!="OK"}}[$__rate_interval]))',
                "{{grpc_method}} {{grpc_code}}",
                "reqps",
            ),
            _one(
                "Time of a call, p99",
                "histogram_quantile(0.99, sum by (le, grpc_method) (rate("
                f"grpc_server_handling_seconds_bucket{{{NODE}}}[$__rate_interval])))",
                "{{grpc_method}}",
                "s",
            ),
            _one(
                "Time of a commit, p99",
                "histogram_quantile(0.99, sum by (le, instance) (rate("
                f"gpud_store_commit_duration_seconds_bucket{{{NODE}}}[$__rate_interval])))",
                "{{instance}}",
                "s",
            ),
            _one(
                "CPU of the daemon",
                f'rate(process_cpu_seconds_total{{{NODE},job="gpud"}}[$__rate_interval])',
                "{{instance}}",
                "percentunit",
            ),
            _one(
                "RAM of the daemon",
                f'process_resident_memory_bytes{{{NODE},job="gpud"}}',
                "{{instance}}",
                "bytes",
            ),
            _one(
                "Age of the newest snapshot",
                f"time() - gpud_snapshot_timestamp_seconds{{{NODE}}}",
                "{{instance}}",
                "s",
            ),
            _one(
                "Events",
                f"sum by (type) (increase(gpud_events_total{{{NODE}}}[$__rate_interval]))",
                "{{type}}",
            ),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """The whole of it."""
    return {
        "title": "gpud",
        "uid": "gpud-overview",
        "description": "GPU memory: seen, promised, used; the models inside the promises.",
        "tags": ["gpu", "gpud", "llm"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "id": None,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "",
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": list(_variables())},
        "panels": list(_placed()),
    }


def _variables() -> Iterable[dict[str, Any]]:
    yield {
        "name": "DS_PROMETHEUS",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "hide": 0,
        "refresh": 1,
    }
    for name, label, query in (
        ("instance", "Node", "label_values(gpud_build_info, instance)"),
        ("gpu", "Device", f"label_values(gpud_device_info{{{NODE}}}, device)"),
        ("model", "Model", f"label_values(gpud_model_ready{{{NODE}}}, model)"),
    ):
        yield {
            "name": name,
            "label": label,
            "type": "query",
            "datasource": SOURCE,
            "definition": query,
            "query": {"query": query, "refId": "StandardVariableQuery"},
            "includeAll": True,
            "allValue": ".*",
            "multi": True,
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
            "refresh": 2,
            "sort": 1,
            "hide": 0,
        }


def _placed() -> Iterable[dict[str, Any]]:
    """Rows one below the other; in each, panels from left to right."""
    number, y = 1, 0
    for title, panels in ROWS:
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
            "panels": [],
        }
        number, y, x = number + 1, y + 1, 0
        for panel in panels:
            if x + panel.width > WIDTH:
                x, y = 0, y + panel.height
            yield _panel(number, panel, {"x": x, "y": y, "w": panel.width, "h": panel.height})
            number, x = number + 1, x + panel.width
        y += panels[-1].height


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.most is not None:
        defaults["max"] = panel.most
    options: dict[str, Any] = {"reduceOptions": {"calcs": ["lastNotNull"]}}
    if panel.kind == "timeseries":
        stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
        fill = 40 if panel.stacked else 8
        defaults["custom"] = {"stacking": stacking, "fillOpacity": fill, "showPoints": "never"}
        options = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + at),
                "datasource": SOURCE,
                "expr": expr,
                "legendFormat": legend,
            }
            for at, (expr, legend) in enumerate(panel.queries)
        ],
    }


def text() -> str:
    """As the file has it."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PLACE.write_text(text())
    print(PLACE)
    sys.exit(0)
