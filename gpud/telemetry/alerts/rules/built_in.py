"""Pure: the rules that gpud brings along; [alerts.rules.NAME] changes one, or turns it off."""

from __future__ import annotations

from typing import Final

from gpud.telemetry.alerts.alert import Severity
from gpud.telemetry.alerts.rules import signs
from gpud.telemetry.alerts.rules.happenings import xid_severity
from gpud.telemetry.alerts.rules.levels import DEVICES, DROP, INSTANCES, LOW_USE, NODE
from gpud.telemetry.alerts.rules.rule import Happening, Level, Rule, Sign
from gpud.units import MIB

_LOW_DISK_BYTES: Final = 512 * MIB

_LEVELS: Final = (
    Rule(
        name="low_utilization",
        what=Level(
            field=LOW_USE,
            noun=DEVICES,
            unit="percent",
            words="while it serves, its utilization is",
            below=60.0,
            clear=65.0,
        ),
        for_seconds=300.0,
        severity=Severity.WARNING,
        remedy="serve more requests at once (--parallel), or put more on it; `gpuctl history`",
    ),
    Rule(
        name="slow_responses",
        what=Level(
            field="request_p99_seconds",
            noun=INSTANCES,
            unit="seconds",
            words="the slowest hundredth of its responses takes",
            above=2.0,
            clear=1.8,
        ),
        for_seconds=60.0,
        severity=Severity.WARNING,
        remedy="load another instance, or a smaller model; `gpuctl instances -o wide`",
    ),
    Rule(
        name="high_memory",
        what=Level(
            field="memory_used_percent",
            noun=DEVICES,
            unit="percent",
            words="memory in use is",
            above=90.0,
            clear=87.0,
        ),
        for_seconds=30.0,
        severity=Severity.WARNING,
        remedy="`gpuctl show DEVICE` tells who holds it",
    ),
    Rule(
        name="throughput_drop",
        what=Level(
            field=DROP,
            noun=INSTANCES,
            unit="percent",
            words="under the same load it gives less than usual, by",
            above=20.0,
            clear=15.0,
        ),
        for_seconds=60.0,
        severity=Severity.WARNING,
        remedy="see whether its device is hot, throttled or shared (`gpuctl show DEVICE`)",
    ),
    Rule(
        name="request_errors",
        what=Level(
            field="error_ratio",
            noun=INSTANCES,
            unit="ratio",
            words="the share of requests that fail is",
            above=0.05,
            clear=0.02,
        ),
        for_seconds=60.0,
        severity=Severity.WARNING,
        remedy="`gpuctl logs INSTANCE` tells why",
    ),
    Rule(
        name="requests_wait",
        what=Level(
            field="requests_waiting",
            noun=INSTANCES,
            unit="count",
            words="requests that wait for a free slot are",
            above=0.0,
            clear=0.0,
        ),
        for_seconds=300.0,
        severity=Severity.INFO,
        remedy="load another instance, or one with more slots (--parallel)",
    ),
    Rule(
        name="leaked_memory",
        what=Level(
            field="leaked_bytes",
            noun=DEVICES,
            unit="bytes",
            words="of owners that are gone it still holds",
            above=0.0,
            clear=0.0,
        ),
        severity=Severity.WARNING,
        remedy="end what holds it (`gpuctl orphans`), or reset the device",
    ),
    Rule(
        name="disk_nearly_full",
        what=Level(
            field="state_disk_free_bytes",
            noun=NODE,
            unit="bytes",
            words="free space on the disk of node.state_dir is",
            below=float(_LOW_DISK_BYTES),
            clear=1.5 * _LOW_DISK_BYTES,
        ),
        severity=Severity.CRITICAL,
        remedy="free space there: on a full disk gpud promises nothing new",
    ),
    Rule(
        name="host_memory",
        what=Level(
            field="memory_some_percent",
            noun=NODE,
            unit="percent",
            words="tasks wait for the host's memory in a share of the time of",
            above=10.0,
            clear=5.0,
        ),
        for_seconds=30.0,
        severity=Severity.WARNING,
        remedy="unload something (`gpuctl instances`), or end what else takes memory",
    ),
    Rule(
        name="certificate_expiry",
        what=Level(
            field="certificate_days",
            noun=NODE,
            unit="days",
            words="a certificate of server.listen, or its client CA, ends in",
            below=14.0,
            clear=14.0,
        ),
        severity=Severity.WARNING,
        remedy="renew it (`gpud tls --help`); gpud takes up the new one by itself",
    ),
    Rule(
        name="certificate_ends",
        what=Level(
            field="certificate_days",
            noun=NODE,
            unit="days",
            words="a certificate of server.listen, or its client CA, ends in",
            below=2.0,
            clear=2.0,
        ),
        severity=Severity.CRITICAL,
        remedy="renew it now (`gpud tls --help`): then no client connects any more",
    ),
)
_SIGNS: Final = (
    Rule(
        name="thermal",
        what=Sign(look=signs.thermal),
        remedy="see to its cooling, or put less on it; its edges are policy.thermal_celsius",
    ),
    Rule(
        name="throttled",
        what=Sign(look=signs.throttled),
        for_seconds=30.0,
        severity=Severity.WARNING,
        remedy="see to its cooling: what runs there is slower than it could be",
    ),
    Rule(
        name="pressure",
        what=Sign(look=signs.pressure),
        for_seconds=30.0,
        remedy="only loads that leave it under policy.critical_load_percent start there",
    ),
    Rule(
        name="overcommit",
        what=Sign(look=signs.overcommit),
        severity=Severity.CRITICAL,
        remedy="end the others (`gpuctl show DEVICE` names them), or release a promise",
    ),
    Rule(
        name="lost",
        what=Sign(look=signs.lost),
        severity=Severity.CRITICAL,
        remedy="`dmesg` tells more; a lost card mostly needs a reboot. One that was taken out: "
        "`gpuctl uncordon DEVICE` has gpud forget it",
    ),
    Rule(
        name="stale",
        what=Sign(look=signs.stale),
        severity=Severity.CRITICAL,
        remedy="its driver hangs: `dmesg` tells more; gpud takes it up again by itself",
    ),
    Rule(
        name="unknown",
        what=Sign(look=signs.unknown),
        for_seconds=30.0,
        severity=Severity.WARNING,
        remedy="`gpuctl devices -o wide` shows what it refuses",
    ),
    Rule(
        name="verdict",
        what=Sign(look=signs.verdict),
        remedy="once it is done, `gpuctl uncordon DEVICE` gives it out again",
    ),
    Rule(
        name="restart_loop",
        what=Sign(look=signs.restart_loop),
        severity=Severity.CRITICAL,
        remedy="`gpuctl logs INSTANCE` tells why; `gpuctl reset INSTANCE` starts it again",
    ),
    Rule(
        name="driver",
        what=Sign(look=signs.driver),
        for_seconds=30.0,
        remedy=(
            "`dmesg` tells more; load the driver, or reboot: gpud takes it up by itself; where no "
            'card is wanted, devices.nvml = "off"'
        ),
    ),
    Rule(
        name="store_read_only",
        what=Sign(look=signs.store),
        severity=Severity.CRITICAL,
        remedy="free space on the state directory's disk; grants resume by themselves",
    ),
)
_HAPPENINGS: Final = (
    Rule(
        name="trespass",
        what=Happening(type="device.trespass", key=("pid", "against")),
        severity=Severity.WARNING,
        remedy="end the process, or have gpud do it (policy.on_trespass)",
    ),
    Rule(
        name="overuse",
        what=Happening(type="reservation.overuse", key=("device",)),
        severity=Severity.WARNING,
        remedy="reserve more, or have gpud end it (policy.on_overuse)",
    ),
    Rule(
        name="xid",
        what=Happening(
            type="device.xid", hold_seconds=600.0, key=("xid",), severity_of=xid_severity
        ),
        within="verdict",
        remedy="`gpuctl show DEVICE` says what is to be done about it",
    ),
    Rule(
        name="footprint_drift",
        what=Happening(type="footprint.drift", hold_seconds=3600.0),
        severity=Severity.INFO,
        remedy="the next load is estimated by the new measurement; did the engine change?",
    ),
)
BUILT_IN: Final = {rule.name: rule for rule in (*_LEVELS, *_SIGNS, *_HAPPENINGS)}
