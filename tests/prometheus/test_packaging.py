"""The rules and the dashboard that come along: checked by promtool, asked of a real Prometheus."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from gpuctl.commands.tree import gpuctl
from tests.project.tree import PACKAGING
from tests.prometheus.conftest import Scraped

RULES = PACKAGING / "prometheus" / "gpud.rules.yml"
RULE_TESTS = PACKAGING / "prometheus" / "gpud.rules.test.yml"
MAKER = runpy.run_path(str(PACKAGING / "grafana" / "make_dashboard.py"))
DASHBOARD = json.loads((PACKAGING / "grafana" / "gpud.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
# Of which there is nothing to see here: llama-server tells neither, and nothing was measured.
EMPTY = {
    "Time to the first token",
    "Time of a request",
    "KV cache in use",
    "Requests that fail",
}
# As dcgm-exporter's own dashboard (grafana.com 12239) asks, in both its ages.
OF_DCGM = (
    'max(DCGM_FI_DEV_GPU_TEMP{Hostname=~".*",gpu=~"0|1"}) by (Hostname, gpu)',
    'sum(max(DCGM_FI_DEV_POWER_USAGE{Hostname=~".*",gpu=~".*"}) by (gpu))',
    'max(DCGM_FI_DEV_SM_CLOCK{Hostname=~".*",gpu=~".*"} * 1000000) by (Hostname, UUID, gpu)',
    'max(DCGM_FI_PROF_GR_ENGINE_ACTIVE{Hostname=~".*",gpu=~".*"}) by (Hostname, gpu)',
    'max(DCGM_FI_DEV_FB_USED{Hostname=~".*",gpu=~".*"}) by (Hostname, gpu)',
    'DCGM_FI_DEV_GPU_UTIL{instance=~".*",gpu=~".*"}',
)


def promtool(programs: Path, *arguments: str | Path) -> str:
    done = subprocess.run(
        [programs / "promtool", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_passes_the_rules_and_their_tests(prometheus_bin: Path) -> None:
    assert "SUCCESS" in promtool(prometheus_bin, "check", "rules", RULES)
    assert "SUCCESS" in promtool(prometheus_bin, "test", "rules", RULE_TESTS)
    config = PACKAGING / "prometheus" / "prometheus.yml"
    assert "SUCCESS" in promtool(prometheus_bin, "check", "config", config)


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def test_each_alert_is_seen_firing_by_a_test() -> None:
    tests = yaml.safe_load(RULE_TESTS.read_text())["tests"]
    fired = {
        each["alertname"]
        for test in tests
        for each in test.get("alert_rule_test", ())
        if each.get("exp_alerts")
    }
    assert fired == {rule["alert"] for rule in alerts()}


def test_no_rule_reads_what_another_group_records() -> None:
    """Groups run in no order that could be relied on."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    records = [{rule["record"] for rule in g["rules"] if "record" in rule} for g in groups]
    for own, group in zip(records, groups, strict=True):
        read = {
            name for rule in group["rules"] for name in re.findall(r"\w+(?::\w+)+", rule["expr"])
        }
        assert read <= own
    assert any(records)


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_what_an_alert_advises_can_be_done(rule: dict[str, Any]) -> None:
    advised = re.findall(r"gpuctl ([a-z]+)", rule["annotations"]["remedy"])
    known = gpuctl.list_commands(click.Context(gpuctl))
    assert set(advised) <= set(known)


def test_every_metric_of_the_rules_is_one_that_there_is(scraped: Scraped) -> None:
    named = set(re.findall(r"\b(?:gpud|grpc_server)_[a-z_0-9]+", RULES.read_text()))
    known = set(re.findall(r"^# TYPE (\S+)", scraped.get("/metrics"), re.MULTILINE))
    known |= {f"{name}_bucket" for name in known}
    absent = {each for each in named if each not in known}
    # Without TLS, and of an engine without a histogram, these are not there.
    assert absent == {
        "gpud_tls_certificate_not_after_timestamp_seconds",
        "gpud_tls_client_ca_not_after_seconds",
        "gpud_model_request_p99_seconds",
        "gpud_model_error_ratio",
    }


def test_the_dashboard_is_what_its_maker_makes() -> None:
    assert (PACKAGING / "grafana" / "gpud.json").read_text() == MAKER["text"]()


def filled(expression: str) -> str:
    """With everything that Grafana puts in."""
    for name in ("instance", "gpu", "model"):
        expression = expression.replace(f"${name}", ".*")
    expression = expression.replace("$__rate_interval", "1m")
    assert "$" not in expression, expression
    return expression


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_every_panel_has_data(panel: dict[str, Any], scraped: Scraped) -> None:
    assert panel["datasource"]["uid"] == "${DS_PROMETHEUS}"
    for target in panel["targets"]:
        expression = filled(target["expr"])
        found = scraped.query(expression)
        if panel["title"] not in EMPTY:
            assert found or scraped.until(expression), expression
        for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
            assert all(label in each["metric"] for each in found), (expression, label)


def test_the_variables_find_their_values(scraped: Scraped) -> None:
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert set(variables) == {"DS_PROMETHEUS", "instance", "gpu", "model"}
    wanted = {"gpu": {"gpu0", "gpu1", "host"}, "model": {"chat"}}
    for name in ("instance", "gpu", "model"):
        query = re.fullmatch(r"label_values\((.*), (\w+)\)", variables[name]["definition"])
        assert query is not None
        series = scraped.ask("series", **{"match[]": filled(query[1])})
        values = {each[query[2]] for each in series}
        assert values == wanted.get(name, {f"127.0.0.1:{scraped.gpud_port}"})


def test_panels_do_not_lie_upon_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < MAKER["WIDTH"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


@pytest.mark.parametrize("expression", OF_DCGM)
def test_the_dashboard_of_dcgm_has_data(expression: str, scraped: Scraped) -> None:
    found = scraped.until(expression)
    assert len(found) == (1 if expression.startswith("sum") else 2)


@pytest.mark.parametrize("name", ["datasource.yml", "dashboards.yml"])
def test_provisioning_is_yaml_of_the_first_version(name: str) -> None:
    told = yaml.safe_load((PACKAGING / "grafana" / "provisioning" / name).read_text())
    assert told["apiVersion"] == 1
    (entry,) = told.get("datasources") or told["providers"]
    assert entry["type"] in {"prometheus", "file"}
