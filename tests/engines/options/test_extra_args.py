"""Flags that the configuration adds: which are taken, and that nothing else ever is."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.engines.engine import EngineProgram
from gpud.engines.options.extra_args import MOST_WORDS, REVIEWED, check_build, check_extra_args
from gpud.errors import OptionInvalid
from gpud.models.model import EngineKind

LLAMA = EngineKind.LLAMA_CPP
# What an allow-list is there to keep out: files, addresses, programs, memory, gpud's own flags.
NEVER = re.compile(
    r"--(host|port|api-key|model|lora|rpc|override|log|path|file|ssl|mmproj|draft|hf-|url|ctx|batch"
    r"|ubatch|parallel|gpu|n-gpu|cache-(ram|type)|tensor|split|device|fit|alias|metrics|verbos"
    r"|trust|download|config|worker|middleware|plugin|quant|dtype|max-model|swap-space|cpu-offload"
    r"|kv-|load-|served|tokenizer$|allowed|root|uds|props|tools|media|swa|moe|cpu-moe|n-cpu)"
)

words = st.lists(
    st.sampled_from([flag for flags in REVIEWED.values() for flag in flags])
    | st.sampled_from(
        ["1", "-1", "yarn", "0.5", "chatml", "--host", "--port", "--rpc", "1\n--rpc"]
    )
    | st.text(max_size=20),
    max_size=8,
)


@given(kind=st.sampled_from(EngineKind), said=words)
def test_what_is_taken_is_reviewed_word_by_word(kind: EngineKind, said: list[str]) -> None:
    try:
        taken = check_extra_args(kind, said)
    except OptionInvalid:
        return
    assert list(taken) == said
    rest, seen = list(taken), set()
    while rest:
        flag = rest.pop(0)
        form = REVIEWED[kind][flag]
        assert flag not in seen
        seen.add(flag)
        if form is not None:
            value = rest.pop(0)
            assert re.fullmatch(form, value, re.ASCII)
            assert not re.match(r"-+[a-zA-Z]", value), "a value that would be taken for a flag"


@pytest.mark.parametrize("kind", EngineKind)
def test_nothing_reviewed_reaches_files_addresses_or_memory(kind: EngineKind) -> None:
    assert [flag for flag in REVIEWED[kind] if NEVER.match(flag)] == []
    forms = [form for form in REVIEWED[kind].values() if form is not None]
    for value in ("/etc/passwd", "../x", "a/b", "http://x", "{}", "", "a b", "--x", "@x"):
        assert not [form for form in forms if re.fullmatch(form, value, re.ASCII)], value


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (["--rope-scale"], "--rope-scale is followed by nothing"),
        (["--rope-scale", "--yarn-orig-ctx"], "is not of the form"),
        (["--rope-scale", "2", "--rope-scale", "2"], "stands there twice"),
        (["--rope-scale=2"], "did you mean --rope-scale?"),
        (["--host", "0.0.0.0"], "not one of the reviewed flags of llama_cpp"),
        (["-c", "5"], "not one of the reviewed"),
        (["2"], "not one of the reviewed"),
        (["--jinja"] * (MOST_WORDS + 1), "65 words, at most 64"),
        (["--chat-template", "{{ x }}"], "is not of the form"),
        (["--prio", "3"], "is not of the form"),
    ],
)
def test_a_refusal_says_which_word_and_why(said: list[str], told: str) -> None:
    with pytest.raises(OptionInvalid) as refused:
        check_extra_args(LLAMA, said)
    assert told in refused.value.problem


def test_a_command_writes_its_own_argv() -> None:
    with pytest.raises(OptionInvalid, match="write them into argv"):
        check_extra_args(EngineKind.COMMAND, ["--seed", "1"])


def test_a_build_that_lacks_a_flag_is_named() -> None:
    program = EngineProgram(
        kind=LLAMA, path="/opt/llama-server", version="b4000", flags={"--seed": "--seed SEED"}
    )
    assert check_build(program, ["--seed", "1"]) == ("--seed", "1")
    with pytest.raises(OptionInvalid, match=r"/opt/llama-server \(b4000\) does not know --numa"):
        check_build(program, ["--seed", "1", "--numa", "isolate"])
