"""README's table of events has what the code tells: all of it, and nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from gpud.ledger.reservation import ReservationState
from gpud.settings import Config
from gpud.v1.node_pb2 import NodeState
from tests.project.tree import ROOT, own_modules, parsed

_TYPE = re.compile(r"[a-z]+(\.[a-z_]+)+")
_FILE = re.compile(r".*\.(json|db|safetensors)")
DEFAULTS = Config()
ALERTS = ROOT / "gpud" / "telemetry" / "alerts" / "telling.py"


@cache
def told() -> frozenset[str]:
    """By README: `family.one` and, after it, `another` of the same family."""
    _, _, table = (ROOT / "README.md").read_text().partition("| of | events |\n")
    found, family = set(), ""
    for name in re.findall(r"`([a-z_.]+)`", table.partition("\n\n")[0]):
        family = name.partition(".")[0] if "." in name else family
        found.add(name if "." in name else f"{family}.{name}")
    return frozenset(found)


@cache
def _nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(parsed(path)))


def _calls(path: Path) -> Iterator[tuple[str, str, ast.Call]]:
    """Each call with whose function it is, where that is a name, and what it is called."""
    for node in _nodes(path):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=whose), attr=name)):
                yield whose, name, node
            case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)):
                yield "", name, node


def _logged(path: Path) -> set[int]:
    """Nodes within what is logged, here or by who hears a Remark: lines are called alike."""
    return {
        id(inner)
        for whose, name, call in _calls(path)
        if whose == "log" or name == "Remark"
        for inner in ast.walk(call)
    }


def _is_setting(name: str) -> bool:
    section, _, key = name.partition(".")
    return hasattr(getattr(DEFAULTS, section, None), key)


def _named(path: Path) -> Iterator[str]:
    """Whatever text in a module has the form of an event's type."""
    logged = _logged(path)
    for node in _nodes(path):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = node.value
            looks_so = _TYPE.fullmatch(name) and not _FILE.fullmatch(name)
            if looks_so and not _is_setting(name) and id(node) not in logged:
                yield name


def _given(path: Path) -> Iterator[ast.expr]:
    """What is given as a `type`, or to a function of the module as its `type_`."""
    takes = {}
    for node in _nodes(path):
        if isinstance(node, ast.FunctionDef):
            names = [each.arg for each in node.args.args if each.arg != "self"]
            if "type_" in names:
                takes[node.name] = names.index("type_")
    for _, name, call in _calls(path):
        yield from (each.value for each in call.keywords if each.arg == "type")
        if name in takes and len(call.args) > takes[name]:
            yield call.args[takes[name]]


def _alerts() -> set[str]:
    nodes = (node for given in _given(ALERTS) for node in ast.walk(given))
    words = {node.value for node in nodes if isinstance(node, ast.Constant)}
    return {f"alert.{word}" for word in words if str(word).isidentifier()}


# Those that are put together when they are told: how that is written, and what comes of it.
COMPOSED = {
    "f'node.{name.lower()}'": {
        f"node.{name.removeprefix('NODE_STATE_').lower()}"
        for name, number in NodeState.items()
        if number
    },
    "f'reservation.{reservation.state.value}'": {
        f"reservation.{state.value}" for state in ReservationState
    },
    "f\"{('device' if uuid else 'node')}.{names[lifted]}\"": {
        "device.cordoned", "device.uncordoned", "node.draining", "node.resumed"
    },
    "f'driver.{what}'": {"driver.failed", "driver.recovered"},
    "f'device.compute_mode{suffix}'": {"device.compute_mode", "device.compute_mode_refused"},
    "f'{offence.type}.ended'": {"device.trespass.ended", "reservation.overuse.ended"},
    "f'{FAMILY}.{type_}'": _alerts(),
}  # fmt: skip


def test_what_is_put_together_is_known_here() -> None:
    written = {
        ast.unparse(given)
        for path in own_modules()
        for given in _given(path)
        if isinstance(given, ast.JoinedStr)
    }
    assert written == COMPOSED.keys()


def test_the_table_has_each_event_and_no_other() -> None:
    families = {name.partition(".")[0] for name in told()}
    server = [path for path in own_modules() if path.is_relative_to(ROOT / "gpud")]
    # Of another family too, where it is plain that it is a type.
    plain = {
        given.value
        for path in server
        for given in _given(path)
        if isinstance(given, ast.Constant) and _TYPE.fullmatch(str(given.value))
    }
    named = {name for path in server for name in _named(path)}
    code = plain | {name for name in named if name.partition(".")[0] in families}
    assert told() == code.union(*COMPOSED.values())
