"""Refusals as people read them; made from the daemon's own errors, as it would send them."""

from __future__ import annotations

from dataclasses import replace

import grpc
import pytest
from google.rpc import error_details_pb2

from gpuctl.refusal import refusal_lines
from gpud.errors import DeviceShortage, DeviceUnavailable, GpudError, VramInsufficient
from gpud.rpc.errors import status_of
from tests.fakes.daemon import FakeDaemon, Refusal
from tests.gpuctl.conftest import Gpuctl

MIB = 1024**2
TOTAL = 6081 * MIB
GROUP_OF_8 = "  gpu0–gpu7  5.44 GiB grantable of 5.94 GiB (reserve 512 MiB)"


def shortage(alias: str, granted_bytes: int = 0, rule: str = "") -> DeviceShortage:
    return DeviceShortage(
        device=f"devices/SIM-{alias}",
        alias=alias,
        grantable_bytes=None if rule else TOTAL - 512 * MIB - granted_bytes,
        total_bytes=TOTAL,
        reserve_bytes=512 * MIB,
        granted_bytes=granted_bytes,
        foreign_bytes=0,
        unattributed_bytes=0,
        leaked_bytes=0,
        rule=rule,
    )


def insufficient(*shortages: DeviceShortage) -> VramInsufficient:
    return VramInsufficient(needed_bytes=40 * 1024 * MIB, device_count=1, shortages=shortages)


def facts_of(error: GpudError) -> dict[str, str]:
    info = error_details_pb2.ErrorInfo()
    status_of(error).details[0].Unpack(info)
    return dict(info.metadata)


def told(error: GpudError, width: int = 80) -> list[str]:
    return refusal_lines(f"gpuctl: {error}", facts_of(error), width)


def test_devices_that_are_refused_alike_share_a_line() -> None:
    cards = [shortage(f"gpu{index}") for index in range(8)]
    assert told(insufficient(*cards)) == [
        "gpuctl: cannot promise 40 GiB:",
        GROUP_OF_8,
        "  release something (`gpuctl reservations`), ask for less, or try another device",
    ]


def test_a_rule_that_has_parts_is_told_once() -> None:
    rule = "the node is draining; `gpuctl resume` ends that"
    error = DeviceUnavailable(shortages=(shortage("gpu0", rule=rule), shortage("gpu1", rule=rule)))
    assert told(error) == [
        "gpuctl: cannot grant on:",
        f"  gpu0, gpu1  {rule}",
        "  `gpuctl devices` shows which devices can",
    ]


def test_each_reason_has_a_line() -> None:
    cards = [shortage(f"gpu{index}") for index in range(6)]
    cards[1] = shortage("gpu1", granted_bytes=4096 * MIB)
    cards[5] = shortage("gpu5", rule="UNRESPONSIVE (no answer within 2 s)")
    assert told(insufficient(*cards))[1:-1] == [
        "  gpu0, gpu2–gpu4  5.44 GiB grantable of 5.94 GiB (reserve 512 MiB)",
        "  gpu1             1.44 GiB grantable of 5.94 GiB (reserve 512 MiB, granted",
        "                   4 GiB)",
        "  gpu5             UNRESPONSIVE (no answer within 2 s)",
    ]


WAITS = "kept for reservations/r-9, which waits before it"


def test_who_is_in_the_way_is_told_with_the_numbers() -> None:
    cards = [replace(shortage(f"gpu{index}"), obstacle=WAITS) for index in range(2)]
    stranger = "EXCLUSIVE needs it empty, and pid 623 (python) uses 203 MiB there"
    cards.append(replace(shortage("gpu2"), obstacle=stranger))
    lines = told(insufficient(*cards), 200)
    assert lines == [
        "gpuctl: cannot promise 40 GiB:",
        f"  gpu0, gpu1  {WAITS}; 5.44 GiB grantable of 5.94 GiB (reserve 512 MiB)",
        f"  gpu2        {stranger}; 5.44 GiB grantable of 5.94 GiB (reserve 512 MiB)",
        "  release something (`gpuctl reservations`), ask for less, or try another device",
    ]


def test_a_sentence_that_fits_but_leaves_numbers_out_is_not_all() -> None:
    error = insufficient(replace(shortage("gpu0"), obstacle=WAITS))
    sentence = f"gpuctl: cannot promise 40 GiB: gpu0: {WAITS}; ask for less"
    assert refusal_lines(sentence, facts_of(error), 200) == [
        "gpuctl: cannot promise 40 GiB:",
        f"  gpu0  {WAITS}; 5.44 GiB grantable of 5.94 GiB (reserve 512 MiB)",
        "  ask for less",
    ]


def test_what_is_used_above_the_promises_is_told_beside_them() -> None:
    card = replace(shortage("gpu0", granted_bytes=256 * MIB), overuse_bytes=448 * MIB)
    assert "granted 256 MiB, over-use 448 MiB" in " ".join(told(insufficient(card), 100))
    without = facts_of(insufficient(card))
    del without["gpu0.overuse_bytes"]  # of an older gpud
    assert "granted 256 MiB)" in "\n".join(refusal_lines("x gpu0: " + "y" * 80, without, 80))


def test_names_are_in_the_order_of_their_numbers() -> None:
    cards = [shortage(name) for name in ("gpu10", "gpu2", "gpu9", "host")]
    (line,) = told(insufficient(*cards))[1:-1]
    assert line.startswith("  gpu2, gpu9, gpu10, host  5.44 GiB")


def test_the_devices_that_were_not_told_are_counted() -> None:
    lines = told(insufficient(*(shortage(f"gpu{index}") for index in range(12))))
    assert lines[1:3] == [GROUP_OF_8, "  and 4 more"]


def test_a_refusal_whatever_the_bytes() -> None:
    lost = tuple(shortage(f"gpu{index}", rule="LOST (Xid 79: fell off)") for index in range(3))
    assert told(DeviceUnavailable(shortages=lost)) == [
        "gpuctl: cannot grant on:",
        "  gpu0–gpu2  LOST (Xid 79: fell off)",
        "  `gpuctl devices` shows which devices can",
    ]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    cards = [shortage(f"gpu{index}", granted_bytes=index % 3 * MIB) for index in range(8)]
    assert max(map(len, told(insufficient(*cards), width))) <= width


def test_what_fits_is_one_line() -> None:
    error = insufficient(shortage("gpu0"))
    assert told(error, 200) == [f"gpuctl: {error}"]


def test_facts_that_were_cut_leave_the_sentence_whole() -> None:
    error = insufficient(*(shortage(f"gpu{index}") for index in range(8)))
    facts = facts_of(error) | {"gpu3.grantable_bytes": ""}
    assert refusal_lines(f"gpuctl: {error}", facts, 80) == [f"gpuctl: {error}"]


def test_nothing_that_a_terminal_would_obey_is_left() -> None:
    card = replace(shortage("gpu0"), rule="LOST \x1b[2J" + "for good " * 9)
    assert not any("\x1b" in line for line in told(insufficient(card)))


def test_a_refused_reserve_is_told_so_unless_with_v(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    error = insufficient(*(shortage(f"gpu{index}") for index in range(8)))
    daemon.answers["Reserve"] = Refusal(
        code=grpc.StatusCode.RESOURCE_EXHAUSTED,
        message=str(error),
        reason=error.reason,
        metadata=facts_of(error),
    )
    assert gpuctl("reserve --vram 40GiB").err.splitlines()[1] == GROUP_OF_8
    assert gpuctl("reserve --vram 40GiB -v").err.startswith(f"gpuctl: {error}\n")
