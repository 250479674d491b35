"""What an engine is started with, whatever the configuration says or a client asks."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gpud import assembly, config
from gpud.engines.engine import ENVIRONMENT_NAMES, Command, StartRequest
from gpud.engines.llama.engine import LlamaCpp
from gpud.errors import ConfigInvalid, ModelNotFound, OptionInvalid
from gpud.models.artifact import ArtifactRefused, check_path
from gpud.models.model import ModelKind
from gpud.rpc.messages import options_from
from gpud.v1 import instances_pb2, models_pb2
from tests.engines.llama.test_command import NEWER, OLDER, parsed
from tests.fakes.probe import FakeProbe

FOLDER = Path("/var/lib/gpud/instances/i-1")
FIELDS = models_pb2.ModelOptions.DESCRIPTOR.fields
NAMES = [field.name for field in FIELDS]
# What somebody would try, and then anything at all.
ATTEMPTS = st.sampled_from(
    ["--api-key", "-m", "--host=0.0.0.0", "0.0.0.0", "f16", "q8_0", "on", "auto", "llama_cpp",
     "f16 --port 1", "f16\n--port", "f16\0--port", "$(id)", "`id`", "../x", "/etc/passwd",
     "tiny.gguf", "sub/tiny.gguf", "-tiny.gguf", "1e9", "-1", "4096", "true", "false", ""]
)  # fmt: skip
anything = ATTEMPTS | st.text(st.characters(codec="utf-8"), max_size=30)


def value_of(field: Any) -> st.SearchStrategy[Any]:
    """Whatever the wire lets through."""
    if field.type == field.TYPE_STRING:
        return anything
    if field.type == field.TYPE_BOOL:
        return st.booleans()
    if field.type == field.TYPE_DOUBLE:
        return st.lists(st.floats(), max_size=20)
    bits = 64 if field.type == field.TYPE_INT64 else 32
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) | st.integers(0, 5000)


# What is meant well, so that much of it comes as far as an argv.
GOOD: dict[str, tuple[Any, ...]] = {
    "context_length": (512, 4096),
    "parallel": (1, 2),
    "batch": (600, 2048),
    "ubatch": (64, 512),
    "cache_type_k": ("f16", "q8_0"),
    "cache_type_v": ("f16", "iq4_nl"),
    "flash_attention": ("on", "auto"),
    "gpu_layers": (0, 33),
    "threads": (1, 4),
    "kv_unified": (True, False),
    "embedding": (True, False),
    "threads_batch": (1, 4),
    "split_mode": ("layer", "row"),
    "mmap": (True, False),
    "mlock": (True, False),
    "cache_reuse": (0, 256),
    "continuous_batching": (True, False),
    "cache_ram_bytes": (0, 2**30),
    "pooling": ("mean", "cls"),
    "sleep_idle_seconds": (0, 60),
}
# Of the wire alone: an environment variable holds no list.
SPLITS = st.sampled_from([[1.0, 1.0], [3.0, 0.001]])
good_options = {name: st.sampled_from(values) for name, values in GOOD.items()}


def few(values: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """None, one or two of these."""
    names = st.lists(st.sampled_from(sorted(values)), max_size=2, unique=True)
    return names.flatmap(lambda some: st.fixed_dictionaries({name: values[name] for name in some}))


def over(*layers: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(*layers).map(lambda made: {k: v for each in made for k, v in each.items()})


asked = over(
    st.fixed_dictionaries({}, optional=good_options | {"tensor_split": SPLITS}),
    few({field.name: value_of(field) for field in FIELDS}),
)
written = over(
    st.fixed_dictionaries(
        {"path": st.sampled_from(["tiny.gguf", "/srv/models/sub/Tiny 1.5, q4_0.gguf"])},
        optional={name: good.map(str).map(str.lower) for name, good in good_options.items()}
        | {"kind": st.just("chat"), "api_key_file": st.just("/etc/gpud/key")},
    ),
    few(dict.fromkeys([*NAMES, "path", "kind", "engine", "api_key_file"], anything)),
)


@pytest.fixture(autouse=True, scope="module")
def hostile_environment() -> Any:
    """What gpud itself was started with is nothing to an engine."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("LLAMA_ARG_HOST", "LD_PRELOAD", "LD_AUDIT", "PYTHONPATH", "GPUD_SECRET"):
            patch.setenv(name, "canary")
        patch.setenv("LD_LIBRARY_PATH", ":relative:/opt/cuda/lib64")
        yield


@settings(max_examples=400)
@given(
    name=st.just("tiny") | st.sampled_from(["x", "a.b_c-1"]) | st.just("y-2") | anything,
    entry=written,
    options=asked,
    kind=st.sampled_from(ModelKind),
    devices=st.lists(st.sampled_from(["GPU-1", "GPU-2"]), unique=True).map(tuple),
    build=st.sampled_from([(NEWER, "on|off|auto"), (OLDER, None)]),
)
def test_nothing_but_the_allow_list_is_ever_executed(
    name: str,
    entry: dict[str, str],
    options: dict[str, Any],
    kind: ModelKind,
    devices: tuple[str, ...],
    build: Any,
) -> None:
    environment = {f"GPUD_MODELS__{name}__{key}": value for key, value in entry.items()}
    try:
        model = assembly.catalogue(config.load(None, environment)).get(name.lower())
        check_path(model.path)
        engine = LlamaCpp("llama-server", FakeProbe())
        message = models_pb2.ModelOptions(**options)
        checked = engine.check_options(options_from(message).over(model.options))
    except (ConfigInvalid, ModelNotFound, ArtifactRefused, OptionInvalid):
        return
    program, flash_attention = build
    key = FOLDER / "key" / "api-key" if model.api_key_file and program is NEWER else None
    request = StartRequest(
        model=model,
        options=checked,
        model_path=FOLDER / "model" / PurePosixPath(model.path).name,
        host="127.0.0.1",
        port=18080,
        visible_devices=devices,
        directory=FOLDER,
        key_path=key,
    )
    try:
        command = engine.command(program, request)
    except OptionInvalid:
        return  # this build has no flag for it
    found = parsed(command.argv, flash_attention)
    assert re.fullmatch(rf"{FOLDER}/model/[\w.][^/\x00-\x1f]*", found["--model"] or "")
    assert found["--host"] == "127.0.0.1"
    assert found.get("--api-key-file") == (str(key) if key else None)
    assert not any("\0" in word or "\n" in word for word in command.argv)
    assert command.environment.keys() <= ENVIRONMENT_NAMES
    assert "canary" not in repr(command)
    assert command.environment["LD_LIBRARY_PATH"] == "/opt/cuda/lib64"


def test_no_request_brings_a_flag_or_a_command() -> None:
    """Those are the configuration's alone; a client names typed options."""
    messages = [
        message
        for file in (models_pb2, instances_pb2)
        for name, message in file.DESCRIPTOR.message_types_by_name.items()
        if name.endswith("Request")
    ]
    fields = {field.name for message in messages for field in message.fields} | set(NAMES)
    assert {"model", "options", "threads"} <= fields
    assert not fields & {"extra_args", "args", "argv", "command", "environment", "flags"}


def test_some_of_it_is_executed() -> None:
    """Or the law above held for nothing."""
    environment = {"GPUD_MODELS__TINY__PATH": "sub/tiny.gguf", "GPUD_MODELS__TINY__BATCH": "600"}
    model = assembly.catalogue(config.load(None, environment)).get("tiny")
    checked = LlamaCpp("x", FakeProbe()).check_options(
        options_from(models_pb2.ModelOptions(parallel=2)).over(model.options)
    )
    assert (checked.batch, checked.parallel) == (600, 2)


@given(name=anything)
def test_no_other_name_is_let_into_an_environment(name: str) -> None:
    assume(name not in ENVIRONMENT_NAMES)
    with pytest.raises(ValueError, match="no engine is given"):
        Command(argv=("/bin/true",), environment={name: "x"})


def test_the_names_that_are_let_in_carry_no_orders() -> None:
    """LD_LIBRARY_PATH alone, of all that a loader listens to: CUDA builds need it."""
    orders = re.compile(r"LLAMA_|GGML_|LD_(?!LIBRARY_PATH)|PYTHON|BASH_ENV|ENV$|GPUD_")
    assert not [name for name in ENVIRONMENT_NAMES if orders.match(name)]
