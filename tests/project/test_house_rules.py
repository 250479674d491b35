"""What a linter cannot hold: how processes are spawned, what decides, how large things grow."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project.tree import ROOT, own_modules, parsed, pyproject, shown

MAX_FILE_LINES = 450
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 5
# Seven is the aim; beyond this a room is two.
MAX_ROOM_FILES = 12
# A file per service there, and nothing but one.
UNBOUNDED_ROOMS = {"gpud/rpc", "gpuctl/commands"}
EMPTY_NAMES = {"utils", "util", "helpers", "common", "misc", "manager"}
# Each of them makes CPython fork instead of vfork, and a child that is forked while grpcio's
# threads run dies by SIGSEGV now and then, before it reaches exec.
FORKING_ARGUMENTS = {"preexec_fn", "user", "group", "extra_groups"}
SPAWNING_NAMES = {"Popen", "run", "call", "check_call", "check_output"}
SPAWNING_NAMES |= {"create_subprocess_exec", "create_subprocess_shell"}
WORLD = {"asyncio", "time", "os", "subprocess", "socket", "threading", "grpc", "pynvml", "google"}


def forking_calls(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        name = node.func.id if isinstance(node.func, ast.Name) else name
        if name in SPAWNING_NAMES:
            arguments = {keyword.arg for keyword in node.keywords} & FORKING_ARGUMENTS
            found += [f"line {node.lineno}: {name}({argument}=…)" for argument in arguments]
    return found


def imported(tree: ast.AST) -> set[str]:
    """First parts of the names that a module imports."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def is_pure(tree: ast.Module) -> bool:
    return (ast.get_docstring(tree) or "").startswith("Pure:")


def functions() -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in own_modules():
        for node in ast.walk(parsed(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield path, node


@pytest.mark.parametrize("path", own_modules(), ids=shown)
def test_no_spawn_forks(path: Path) -> None:
    assert forking_calls(parsed(path)) == []


def test_the_scan_for_forks_sees_one() -> None:
    code = "import subprocess\nsubprocess.Popen(['x'], preexec_fn=print)\nPopen('y', user=1)"
    assert len(forking_calls(ast.parse(code))) == 2


def deciding_modules() -> list[str]:
    contracts = pyproject()["tool"]["importlinter"]["contracts"]
    return next(
        list(contract["source_modules"])
        for contract in contracts
        if contract["name"] == "Deciding code does not touch the world"
    )


@pytest.mark.parametrize("module", deciding_modules())
def test_deciding_code_says_that_it_is_pure(module: str) -> None:
    path = ROOT / (module.replace(".", "/") + ".py")
    assert is_pure(parsed(path)), f'{shown(path)} opens with """Pure: …"""'


@pytest.mark.parametrize("path", own_modules(), ids=shown)
def test_what_says_that_it_is_pure_does_not_touch_the_world(path: Path) -> None:
    tree = parsed(path)
    # To gpuctl a message is a value.
    world = WORLD - {"google"} if shown(path).startswith("gpuctl/") else WORLD
    if is_pure(tree):
        assert imported(tree) & world == set()


def test_files_stay_small() -> None:
    lines = {shown(path): len(path.read_text().splitlines()) for path in own_modules()}
    large = {path: count for path, count in lines.items() if count > MAX_FILE_LINES}
    assert not large, "what would the two rooms be called?"


def test_functions_stay_small() -> None:
    large = [
        f"{shown(path)}: {function.name}"
        for path, function in functions()
        if (function.end_lineno or 0) - function.lineno >= MAX_FUNCTION_LINES
    ]
    assert large == []


def test_functions_take_few_parameters() -> None:
    many = []
    for path, function in functions():
        arguments = function.args
        names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        count = len([name for name in names if name not in {"self", "cls"}])
        # A command of gpuctl has a parameter for each option that it offers.
        if count > MAX_PARAMETERS and not shown(path).startswith("gpuctl/commands/"):
            many.append(f"{shown(path)}: {function.name} takes {count}")
    assert many == []


def test_rooms_stay_small() -> None:
    counts = Counter(
        shown(path.parent) for path in own_modules() if path.name not in {"__init__.py"}
    )
    full = {
        room: count
        for room, count in counts.items()
        if "/" in room and count > MAX_ROOM_FILES and room not in UNBOUNDED_ROOMS
    }
    assert not full


def test_names_say_something() -> None:
    assert [shown(path) for path in own_modules() if path.stem in EMPTY_NAMES] == []
