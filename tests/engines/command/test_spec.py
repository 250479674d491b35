"""What a command of the configuration may say, and what becomes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.engines.command.spec import (
    PLACEHOLDERS,
    arguments,
    check_spec,
    may_be_set,
    own_environment,
    own_names,
    shown_argv,
)
from gpud.engines.engine import ENVIRONMENT_NAMES, StartRequest
from gpud.errors import OptionInvalid
from gpud.models.model import CommandSpec, EngineKind, Model, ModelOptions

GOOD = CommandSpec(
    argv=("/opt/bin/server", "--port", "${PORT}"), health="/health", device_bytes=1 << 30
)


def request_for(spec: CommandSpec, devices: tuple[str, ...] = ()) -> StartRequest:
    return StartRequest(
        model=Model(
            id="x",
            engine=EngineKind.COMMAND,
            kind=None,
            path="",
            options=ModelOptions(),
            command=spec,
        ),
        options=ModelOptions(),
        model_path=Path("/i/model/${PORT}.bin"),
        host="127.0.0.1",
        port=18080,
        visible_devices=devices,
        directory=Path("/i"),
    )


def test_placeholders_are_filled_in_and_nothing_else_is() -> None:
    spec = replace(
        GOOD,
        argv=(
            "/opt/bin/server",
            "--listen=127.0.0.1:${PORT}",
            "${DEVICES}",
            "$HOME $(id) `id` ; > * ~",
            "${MODEL}:${DIRECTORY}",
        ),
        environment=(("OLLAMA_HOST", "127.0.0.1:${PORT}"), ("LANG", "de_DE.UTF-8")),
    )
    check_spec(spec)
    request = request_for(spec, ("GPU-1", "GPU-2"))
    assert arguments(spec, request) == (
        "/opt/bin/server",
        "--listen=127.0.0.1:18080",
        "GPU-1,GPU-2",
        "$HOME $(id) `id` ; > * ~",
        "/i/model/${PORT}.bin:/i",  # what is filled in is not looked through again
    )
    assert own_environment(spec, request) == {
        "OLLAMA_HOST": "127.0.0.1:18080",
        "LANG": "de_DE.UTF-8",
    }
    assert own_names(spec) == {"OLLAMA_HOST"}


@pytest.mark.parametrize(
    ("changes", "field", "told"),
    [
        ({"argv": ()}, "argv", "0 words"),
        ({"argv": ("server", "${PORT}")}, "argv", "no program's whole path"),
        ({"argv": ("/opt/../bin/sh", "${PORT}")}, "argv", "no program's whole path"),
        ({"argv": ("/opt/${PORT}",)}, "argv", "no program's whole path"),
        ({"argv": ("/opt/x",)}, "argv", "${PORT} stands nowhere"),
        ({"argv": ("/opt/x", "${PORT}", "${HOME}")}, "argv", "'${HOME}' is none of ${PORT}"),
        ({"argv": ("/opt/x", "${PORT}", "${PORT")}, "argv", "'${PORT' is none of"),
        ({"argv": ("/opt/x", "${PORT}", "a\0b")}, "argv", "NUL"),
        ({"argv": ("/opt/x", "${PORT}", "x" * 4097)}, "argv", "4096 bytes"),
        ({"argv": ("/opt/x", *["${PORT}"] * 256)}, "argv", "257 words"),
        ({"environment": (("LD_PRELOAD", "/x.so"),)}, "environment", "'LD_PRELOAD' is not to be"),
        ({"environment": (("PATH", "/x"),)}, "environment", "not to be set"),
        ({"environment": (("lower", "x"),)}, "environment", "capital letters"),
        ({"environment": (("A", "${NAME}"),)}, "environment", "is none of"),
        ({"health": ""}, "health", "is no path"),
        ({"health": "http://x/"}, "health", "is no path"),
        ({"health": "/a b"}, "health", "is no path"),
        ({"health": "/a\r\nHost: x"}, "health", "is no path"),
        ({"metrics": "/metrics"}, "counters", "is missing"),
        ({"counters": (("running", "x"),)}, "metrics", "is missing"),
        ({"metrics": "metrics", "counters": (("running", "x"),)}, "metrics", "is no path"),
        ({"metrics": "/m", "counters": (("running", "x{}"),)}, "counters", "no name of a metric"),
        ({"metrics": "/m", "counters": (("speed", "x"),)}, "counters", "no name of a metric"),
        ({"device_bytes": 0}, "device_bytes", "not above 0"),
        ({"host_bytes": -1}, "host_bytes", "below 0"),
    ],
)
def test_a_refusal_names_the_key(changes: dict[str, object], field: str, told: str) -> None:
    with pytest.raises(OptionInvalid) as refused:
        check_spec(replace(GOOD, **changes))  # type: ignore[arg-type]
    assert refused.value.field == field
    assert told in refused.value.problem


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (("/x", "--api-key", "s3cret", "--port", "1"), "/x --api-key … --port 1"),
        (("/x", "--hf-token=s3cret", "-v"), "/x --hf-token=… -v"),
        (("/x", "--PASSWORD", "--token", "y"), "/x --PASSWORD … y"),
        (("/x", "--max-tokens", "8", "--key-file", "/k"), "/x --max-tokens 8 --key-file /k"),
        (("/x", "token", "y", "--token"), "/x token y --token"),
    ],
)
def test_what_stands_behind_a_flag_for_a_secret_is_not_shown(
    argv: tuple[str, ...], shown: str
) -> None:
    assert " ".join(shown_argv(argv)) == shown


def test_the_port_may_come_by_the_environment() -> None:
    check_spec(replace(GOOD, argv=("/opt/x",), environment=(("OLLAMA_HOST", ":${PORT}"),)))


@pytest.mark.parametrize("name", ["OLLAMA_HOST", "HF_HOME", "A", "OMP_NUM_THREADS", "LANG"])
def test_names_of_a_servers_own(name: str) -> None:
    assert may_be_set(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "a", "A-B", "1A", "A=B", "A\n", "A" * 65, "LD_PRELOAD", "LD_LIBRARY_PATH"),
        *("GPUD_TOKEN", "PATH", "HOME", "TMPDIR", "CUDA_VISIBLE_DEVICES", "PYTHONPATH"),
        *("BASH_ENV", "NODE_OPTIONS"),
    ],
)
def test_names_that_order_other_code_or_are_gpuds(name: str) -> None:
    assert not may_be_set(name)


texts = st.text(max_size=30) | st.sampled_from(
    [f"${{{name}}}" for name in PLACEHOLDERS] + ["${", "$", "}", "${PORT", "$${PORT}}"]
)


@given(
    more=st.lists(texts, max_size=6),
    environment=st.dictionaries(
        st.sampled_from(["A", "LD_X", "PATH", "OLLAMA_HOST", "x"]) | st.text(max_size=8), texts
    ),
)
def test_word_for_word_and_no_word_more(more: list[str], environment: dict[str, str]) -> None:
    spec = replace(GOOD, argv=(*GOOD.argv, *more), environment=tuple(environment.items()))
    try:
        check_spec(spec)
    except OptionInvalid:
        return
    request = request_for(spec, ("GPU-1",))
    argv = arguments(spec, request)
    assert (len(argv), argv[0]) == (len(spec.argv), spec.argv[0])
    for word, written in zip(argv[1:], spec.argv[1:], strict=True):
        assert "\0" not in word
        assert word == written or "${" in written
    assert own_environment(spec, request).keys() == environment.keys()
    assert all(name in ENVIRONMENT_NAMES or may_be_set(name) for name in environment)
