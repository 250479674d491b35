"""Pure: what is wrong with a node, the worst first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from gpuctl.glance.words import answers, device_why, instance_why, is_healthy
from gpuctl.messages import word
from gpud.v1.alerts_pb2 import Alert, AlertSeverity, AlertState
from gpud.v1.devices_pb2 import Device, DeviceKind
from gpud.v1.instances_pb2 import Instance
from gpud.v1.node_pb2 import Node, NodeState


class Trouble(NamedTuple):
    """One of it."""

    severity: str  # CRITICAL or WARNING; empty for a card that was cordoned
    text: str
    rule: str = ""  # of an alert
    subject: str = ""

    @property
    def tone(self) -> str:
        """The colour that it is told in; empty for none."""
        return {"CRITICAL": "red", "WARNING": "yellow"}.get(self.severity, "")

    @property
    def line(self) -> str:
        """As a line."""
        return f"{self.severity} {self.text}" if self.severity else self.text


# Alerts that say what a device or an instance tells of itself, with more words.
_SAME: Final = {"lost", "stale", "unknown", "verdict", "restart_loop"}
# Of these each has a cause of its own, which is what somebody looks for.
_OWN_WORDS: Final = {"lost", "unknown", "verdict", "restart_loop"}
# A card that has to be seen to comes before one that is full or hot.
_FIRST: Final = {"lost", "verdict"}
_HOLDS: Final = {AlertState.ALERT_STATE_FIRING, AlertState.ALERT_STATE_ACKNOWLEDGED}
# Of a check, as monitoring plugins have it.
OK, WARNING, CRITICAL, UNKNOWN = 0, 1, 2, 3
_CODES: Final = {
    AlertSeverity.ALERT_SEVERITY_WARNING: WARNING,
    AlertSeverity.ALERT_SEVERITY_CRITICAL: CRITICAL,
}


def troubles(
    devices: Sequence[Device], instances: Sequence[Instance], alerts: Sequence[Alert]
) -> list[Trouble]:
    """Alerts that are open, then what devices and instances tell that no alert has told of.

    What somebody has acknowledged or silenced is not told in other words either.
    """
    told = {each.subject for each in alerts if each.state in _HOLDS and each.rule in _SAME}
    found = [
        *_of_alerts([alert for alert in alerts if is_open(alert)]),
        *_of_devices(device for device in devices if device.name not in told),
        *_of_instances(instance for instance in instances if instance.name not in told),
    ]
    order = ("CRITICAL", "WARNING", "")
    return sorted(found, key=lambda each: order.index(each.severity))


def gravity(node: Node, alerts: Iterable[Alert]) -> int:
    """What a check asks: OK, or how grave what somebody has to look at is.

    That is for the alerts to say, which wait until they are sure, and for the node.
    """
    worst = max((_CODES[each.severity] for each in alerts if is_open(each)), default=OK)
    if is_calm(node):
        return worst
    return CRITICAL if node.state == NodeState.NODE_STATE_DEGRADED else max(WARNING, worst)


def untold(node: Node, alerts: Iterable[Alert]) -> list[str]:
    """What the node warns of that no alert tells, nor somebody has acknowledged or silenced."""
    told = [each.summary for each in alerts if each.state in _HOLDS]
    return [each for each in node.warnings if not any(each in summary for summary in told)]


def is_calm(node: Node) -> bool:
    """Whether it is as it should be, or as somebody wants it."""
    return node.state in {NodeState.NODE_STATE_READY, NodeState.NODE_STATE_DRAINING}


def is_open(alert: Alert) -> bool:
    """Whether it fires, is more than a note, and nobody has acknowledged or silenced it."""
    fires = alert.state == AlertState.ALERT_STATE_FIRING
    return fires and alert.severity in _CODES and not alert.HasField("silenced_until")


def alert_subject(alert: Alert) -> str:
    """gpu0, i-7f3k, node: whom it is about."""
    return alert.alias or alert.subject.partition("/")[2] or alert.subject


def grouped(found: Iterable[Trouble]) -> list[Trouble]:
    """What one rule says of several in one line, for where there is no room for all of them."""
    return [_together(list(same)) for _, same in groupby(found, key=_kind)]


def _kind(trouble: Trouble) -> tuple[str, ...]:
    """Troubles of the same, next to each other, are one line."""
    if not trouble.rule:
        return trouble
    words = _words(trouble) if trouble.rule in _OWN_WORDS else ""
    return trouble.severity, trouble.rule, words


def _together(same: list[Trouble]) -> Trouble:
    first = same[0]
    if len(same) == 1:
        return first
    subjects = " ".join(each.subject for each in same)
    if first.rule in _OWN_WORDS:
        return first._replace(text=f"{subjects}: {_words(first)}")
    return first._replace(text=f"{first.rule} ({len(same)}): {subjects}")


def _words(trouble: Trouble) -> str:
    return trouble.text.removeprefix(f"{trouble.subject}: ")


def _of_alerts(firing: list[Alert]) -> Iterable[Trouble]:
    for alert in sorted(
        firing, key=lambda a: (-a.severity, a.rule not in _FIRST, a.rule, alert_subject(a))
    ):
        severity = word(alert, "severity")
        yield Trouble(severity, _sentence(alert), alert.rule, alert_subject(alert))


def _sentence(alert: Alert) -> str:
    """The summary, after its subject where it does not name it itself."""
    subject = alert_subject(alert)
    named = subject in alert.summary
    return alert.summary if named else f"{subject}: {alert.summary or alert.rule}"


def _of_devices(devices: Iterable[Device]) -> Iterable[Trouble]:
    for device in devices:
        why = device_why(device)
        if not is_healthy(device):
            # As the rules `unknown`, and `lost` and `stale`, judge it once they are sure; what
            # they leave out of slices has gone with how its card was cut.
            severity = "WARNING" if answers(device) else "CRITICAL"
            if device.kind == DeviceKind.DEVICE_KIND_MIG and not answers(device):
                severity = ""
            yield Trouble(severity, f"{device.alias}: {why or word(device, 'health')}")
        elif device.cordoned:
            yield Trouble("", f"{device.alias}: {why}")
        elif why:
            yield Trouble("WARNING", f"{device.alias}: {why}")


def _of_instances(instances: Iterable[Instance]) -> Iterable[Trouble]:
    for instance in instances:
        why = instance_why(instance)
        if why:
            yield Trouble("WARNING", f"{instance.name.removeprefix('instances/')}: {why}")
