"""packaging/gpud.toml says what gpud does without it, and names every key there is."""

from __future__ import annotations

import re
import tomllib
import typing
from pathlib import Path

import msgspec
import pytest

from gpud import assembly, config
from gpud.settings import Config
from gpud.units import GIB
from tests.project.tree import PACKAGING

EXAMPLE = PACKAGING / "gpud.toml"
# `#key = value`, `#"name" = value` and `#[table]` are settings; `# words` are words.
COMMENTED_OUT = re.compile(r'^#(?=[a-z0-9_]+ = |"[^"]+" = |\[)', re.MULTILINE)

# Names that people choose: of a table, and of what a table of values holds.
TABLE_NAME = re.compile(
    r"^(models|profiles|reservations|sockets|tokens|quotas|alerts\.rules|alerts\.sinks)\.[^.]+(?=\.)"
)
FREE_KEY = re.compile(r"(^identities|\.(labels|environment|counters))\..*")
# A profile has a model's options, which are explained there.
OF_PROFILES = re.compile(r"^profiles\.")


@pytest.fixture
def uncommented(tmp_path: Path) -> Path:
    path = tmp_path / "gpud.toml"
    path.write_text(COMMENTED_OUT.sub("", EXAMPLE.read_text()))
    return path


def keys_of(section: type[msgspec.Struct], prefix: str = "") -> set[str]:
    """Dotted names of all settings below a section; `*` stands for a name that people choose."""
    found: set[str] = set()
    # `for` is no name that an attribute may have.
    written = dict(zip(section.__struct_fields__, section.__struct_encode_fields__, strict=True))
    for attribute, kind in typing.get_type_hints(section).items():
        name = written[attribute]
        inner = nested(kind)
        if inner is None:
            found.add(prefix + name)
        elif name == "entries":
            found |= keys_of(inner, f"{prefix}*.")
        elif typing.get_origin(kind) is dict:
            found |= keys_of(inner, f"{prefix}{name}.*.")
        else:
            found |= keys_of(inner, f"{prefix}{name}.")
    return found


def nested(kind: object) -> type[msgspec.Struct] | None:
    """The section that a key holds, alone or in a list or table of them."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    return next((inner for inner in map(nested, typing.get_args(kind)) if inner), None)


def keys_in(tree: object, prefix: str = "") -> set[str]:
    if isinstance(tree, list) and tree and isinstance(tree[0], dict):
        tree = tree[0]
    if not isinstance(tree, dict):
        return {prefix.removesuffix(".")}
    return set().union(*(keys_in(value, f"{prefix}{name}.") for name, value in tree.items()))


def test_as_it_stands_it_is_the_defaults() -> None:
    assert config.load(EXAMPLE, {}) == Config()


def test_uncommented_it_loads(uncommented: Path) -> None:
    loaded = config.load(uncommented, {})
    assert loaded.devices.simulated[0].count == 8
    assert list(loaded.models.entries) == ["llama-8b", "qwen", "gemma", "whisper"]
    made = assembly.models(loaded)["whisper"]
    assert made.command is not None
    assert made.command.device_bytes == 2 * GIB


def test_it_names_every_key(uncommented: Path) -> None:
    named = keys_in(tomllib.loads(uncommented.read_text()))
    named = {TABLE_NAME.sub(r"\1.*", FREE_KEY.sub(r"\1", name)) for name in named}
    assert any(map(OF_PROFILES.match, named))
    known = {OF_PROFILES.sub("models.", name) for name in keys_of(Config)}
    assert {OF_PROFILES.sub("models.", name) for name in named} == known


def test_each_table_explains_its_first_key() -> None:
    lines = EXAMPLE.read_text().splitlines()
    tables = [at for at, line in enumerate(lines) if re.match(r"#?\[\[?[a-z]", line)]
    bare = [lines[at] for at in tables if not lines[at + 1].startswith("# ")]
    # A list of cards is explained above itself, like its key.
    assert bare == ["#[[devices.simulated]]"]
