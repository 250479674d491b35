"""Rules as the configuration changes them, and its own; what could not be meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpud import config
from gpud.errors import ConfigInvalid
from gpud.telemetry.alerts.alert import Severity
from gpud.telemetry.alerts.judge import Judge
from gpud.telemetry.alerts.rules.built_in import BUILT_IN
from gpud.telemetry.alerts.rules.configured import rules_of
from gpud.telemetry.alerts.rules.rule import Level, Rule
from tests.fakes.cards import GIB
from tests.telemetry.alerts.scenes import card, reading, sight


@pytest.fixture
def rules(tmp_path: Path):
    """The rules of a configuration's text, by name."""

    def read(text: str) -> dict[str, Rule]:
        path = tmp_path / "gpud.toml"
        path.write_text(text)
        return {rule.name: rule for rule in rules_of(config.load(path, {}).alerts)}

    return read


def level(rule: Rule) -> Level:
    assert isinstance(rule.what, Level)
    return rule.what


def test_without_a_word_they_are_those_that_gpud_brings(rules) -> None:
    assert rules("") == BUILT_IN


def test_a_rule_can_be_turned_off_and_all_of_them(rules) -> None:
    assert BUILT_IN.keys() - rules("[alerts.rules.lost]\non = false").keys() == {"lost"}
    assert rules("[alerts]\non = false") == {}


def test_what_is_said_changes_and_the_rest_stays(rules) -> None:
    text = '[alerts.rules.high_memory]\nabove = 95\nfor = "2m"\nseverity = "critical"'
    changed = rules(text)["high_memory"]
    assert (changed.for_seconds, changed.severity) == (120.0, Severity.CRITICAL)
    # Its hysteresis goes along.
    assert (level(changed).above, level(changed).clear) == (95.0, 92.0)
    assert level(changed).field == "memory_used_percent"
    assert changed.remedy == BUILT_IN["high_memory"].remedy


def test_a_sign_takes_on_a_time_and_a_severity(rules) -> None:
    changed = rules('[alerts.rules.thermal]\nfor = "1m"\nseverity = "info"')["thermal"]
    assert changed.what is BUILT_IN["thermal"].what
    assert (changed.for_seconds, changed.severity) == (60.0, Severity.INFO)


def test_rules_of_ones_own(rules) -> None:
    text = """
[alerts.rules.cold]
field = "temperature_celsius"
subject = "gpu1"
below = 10
clear = 12
[alerts.rules.queue]
field = "requests_waiting"
subject = "models/tiny"
above = 4
"""
    made = rules(text)
    judge = Judge([made["cold"], made["queue"]], 0.0)
    judge.look(
        sight(
            card(0, temperature_celsius=5.0),
            card(1, temperature_celsius=9.0),
            engines={
                "a": reading("a", waiting=3),
                "b": reading("b", waiting=3),
                "c": reading("c", model="other", waiting=9),
            },
        )
    )
    told = {alert.rule: alert for alert in judge.alerts()}
    assert told["cold"].summary == "gpu1: temperature_celsius is 9 °C, below 10 °C"
    assert told["queue"].subject == "models/tiny"
    assert told["queue"].value == 6.0
    assert len(list(judge.alerts())) == 2
    judge.look(sight(card(1, temperature_celsius=11.0)))
    assert next(a for a in judge.alerts() if a.rule == "cold").holds  # not beyond `clear`


def test_every_field_of_history_can_be_watched(rules) -> None:
    from gpud.telemetry.history.fields import BY_NAME

    text = "".join(f'[alerts.rules.r{n}]\nfield = "{f}"\nabove = -1\n'
                   for n, f in enumerate(BY_NAME))  # fmt: skip
    judge = Judge([rule for name, rule in rules(text).items() if name[1:].isdigit()], 0.0)
    judge.look(sight(card(used=GIB), engines={"i-1": reading(running=1)}))
    assert {alert.rule for alert in judge.alerts()} >= {"r0"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[alerts.rules.mine]\nabove = 1", "alerts.rules.mine.field: is missing"),
        ("[alerts.rules.high_memry]\nabove = 1", "did you mean high_memory?"),
        ('[alerts.rules.mine]\nfield = "powr_watts"\nabove = 1', "did you mean power_watts"),
        ('[alerts.rules.mine]\nfield = "power_watts"', "alerts.rules.mine.above: is missing"),
        (
            '[alerts.rules.mine]\nfield = "power_watts"\nabove = 1\nbelow = 9',
            "alerts.rules.mine.below: stands beside above",
        ),
        (
            '[alerts.rules.mine]\nfield = "power_watts"\nabove = 5\nclear = 6',
            "alerts.rules.mine.clear: 6 is above 5",
        ),
        (
            '[alerts.rules.mine]\nfield = "power_watts"\nbelow = 5\nclear = 4',
            "alerts.rules.mine.clear: 4 is below 5",
        ),
        (
            '[alerts.rules.mine]\nfield = "power_watts"\nsubject = "instances"\nabove = 5',
            "alerts.rules.mine.subject: power_watts is of devices",
        ),
        ("[alerts.rules.lost]\nabove = 5", "alerts.rules.lost.above: lost has no threshold"),
        ("[alerts.rules.Lost]\non = false", "a name is made of lower-case letters"),
        ("[alerts.rules.lost]\nabov = 5", "did you mean `above`?"),
        (
            '[alerts.rules.thermal]\non = true\n[alerts.rules.mine]\nbelow = "x"',
            "at `alerts.rules.mine.below`",
        ),
        ("[alerts.sinks.pager]\nretries = -1", "at `alerts.sinks.pager.retries`"),
        ("[alerts.rules.high_memory]\nabove = nan", "alerts.rules.high_memory.above: is no"),
        ('[alerts.rules.lost]\nfor = "8d"', "alerts.rules.lost.for: 691200 s is not within"),
        ('[alerts.rules.lost]\nsinks = ["x"]', "there is no [alerts.sinks.x]; there are none"),
        ('[alerts]\nquiet = "2h"', "alerts.quiet: 7200 s is not within 0 … 3600 s"),
        ("[alerts.sinks.x]\nretries = 1", "says neither a webhook nor a command"),
        (
            '[alerts.sinks.x]\nwebhook = "https://a.b/"\ncommand = ["/bin/true"]',
            "says neither a webhook nor a command, or both",
        ),
        ('[alerts.sinks.x]\nwebhook = "ftp://a.b/"', "alerts.sinks.x.webhook: is no URL"),
        ('[alerts.sinks.x]\nwebhook = "https://"', "alerts.sinks.x.webhook: is no URL"),
        ('[alerts.sinks.x]\nwebhook = "https://a.b:x/"', "alerts.sinks.x.webhook: is no URL"),
        ('[alerts.sinks.x]\nwebhook = "https://a.b/ c"', "alerts.sinks.x.webhook: is no URL"),
        ('[alerts.sinks.x]\nwebhook = "http://a.b/"', "sends alerts to a.b in the clear"),
        ('[alerts.sinks.x]\nwebhook = "https://u:p@a.b/"', "names a user of a.b"),
        ('[alerts.sinks.x]\ncommand = ["true"]', "'true' is not an absolute path"),
        ("[alerts.sinks.x]\ncommand = []", "says neither"),
        (
            '[alerts.sinks.x]\ncommand = ["/bin/true"]\nsecret_file = "/x"',
            "alerts.sinks.x.secret_file: is of a webhook alone",
        ),
        (
            '[alerts.sinks.x]\nwebhook = "https://a.b/"\nsecret_header = "Host"',
            "'Host' is no header that a key may stand in",
        ),
        (
            '[alerts.sinks.x]\nwebhook = "https://a.b/"\nsecret_header = "A\\r\\nB"',
            "is no header that a key may stand in",
        ),
        ('[alerts.sinks.x]\nwebhook = "https://a.b/"\ntimeout = "0s"', "timeout: 0 s is not"),
    ],
)
def test_what_could_not_be_meant_is_refused(rules, text: str, told: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        rules(text)
    assert told in str(caught.value)


def test_a_webhook_in_the_clear_is_for_this_host_or_allowed(rules) -> None:
    rules('[alerts.sinks.x]\nwebhook = "http://127.0.0.1:9/x"')
    rules('[alerts.sinks.x]\nwebhook = "http://localhost/x"')
    rules('[alerts.sinks.x]\nwebhook = "http://a.b/x"\nallow_http = true')


def test_a_command_is_taken_only_from_a_file_of_who_owns_the_host(rules, tmp_path: Path) -> None:
    text = '[alerts.sinks.x]\ncommand = ["/bin/true"]'
    rules(text)
    path = tmp_path / "gpud.toml"
    path.chmod(0o666)
    with pytest.raises(ConfigInvalid, match=r"cannot take alerts\.sinks\.x\.command"):
        config.load(path, {})


def test_a_secret_in_a_url_is_not_told(rules) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        rules('[alerts.sinks.x]\nwebhook = "http://a.b/services/T0KEN"')
    assert "T0KEN" not in str(caught.value)
