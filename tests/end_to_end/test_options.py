"""Options, profiles and reviewed flags, as the real llama-server takes them."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gpud.engines.llama.command import read_flags
from gpud.engines.options.extra_args import REVIEWED, check_extra_args
from gpud.engines.options.profiles import BUILT_IN
from gpud.models.model import EngineKind
from gpud.v1 import instances_pb2 as pb
from gpud.v1 import models_pb2
from tests.end_to_end.driving import PATIENCE_SECONDS, instances, load, unload
from tests.running import Gpud, arguments, calling, refused_stream

pytestmark = pytest.mark.engine
MakeGpud = Callable[..., Gpud]

PROFILED = "".join(
    f'[models."of-{name}"]\npath = "tiny.gguf"\nprofile = "{name}"\n' for name in BUILT_IN
)


def words(pid: int) -> list[str]:
    return arguments(pid).decode().rstrip("\0").split("\0")


def valued(argv: list[str], flag: str) -> str:
    return argv[argv.index(flag) + 1]


def gpuctl(daemon: Gpud, *arguments: str) -> str:
    program = [sys.executable, "-c", "from gpuctl.main import main; main()"]
    told = subprocess.run(
        [*program, "--address", daemon.address, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    )
    return told.stdout


async def test_each_profile_is_taken_by_this_build(modelled: MakeGpud, llama_server: Path) -> None:
    daemon = modelled(llama_server, models=PROFILED).start()
    async with calling(daemon) as api:
        for name, options in BUILT_IN.items():
            made = await load(api, f"of-{name}")
            argv = words(made.pid)
            assert valued(argv, "--ctx-size") == str(options.context_length)
            assert valued(argv, "--ubatch-size") == str(options.ubatch)
            assert valued(argv, "--cache-type-v") == "q8_0"
            assert valued(argv, "--flash-attn") == "on"
            assert valued(argv, "--load-mode") == "mmap+mlock"
            assert "--cont-batching" in argv
            assert 0 < made.engine_bytes <= made.footprint.total_bytes
            told = await api.models.GetModel(models_pb2.GetModelRequest(name=f"of-{name}"))
            assert told.model.profile == name
            assert told.model.options.context_length == options.context_length
            await unload(api, instance=made.name)
            shown = await asyncio.to_thread(gpuctl, daemon, "show", f"models/of-{name}")
            assert re.search(rf"^profile: +{name}$", shown, re.MULTILINE)


ORDERED = """
[models.ordered]
path = "tiny.gguf"
profile = "small"
ubatch = 64
extra_args = ["--rope-scaling", "yarn", "--yarn-orig-ctx", "256"]

[profiles.small]
context_length = 768
batch = 96
ubatch = 96
"""


async def test_a_load_comes_before_its_model_and_that_before_its_profile(
    modelled: MakeGpud, llama_server: Path
) -> None:
    daemon = modelled(llama_server, models=ORDERED)
    daemon.config.touch(mode=0o644)
    async with calling(daemon.start()) as api:
        options = models_pb2.ModelOptions(
            ubatch=32, mmap=False, threads_batch=1, cache_ram_bytes=2**20, cache_reuse=16
        )
        made = await load(api, "ordered", options=options)
        argv = words(made.pid)
        assert (valued(argv, "--ctx-size"), valued(argv, "--batch-size")) == ("768", "96")
        assert valued(argv, "--ubatch-size") == "32"
        assert valued(argv, "--cache-ram") == "1"
        assert valued(argv, "--threads-batch") == "1"
        assert valued(argv, "--cache-reuse") == "16"
        assert valued(argv, "--rope-scaling") == "yarn"
        told = await api.models.GetModel(models_pb2.GetModelRequest(name="ordered"))
        assert list(told.model.extra_args)[:2] == ["--rope-scaling", "yarn"]
        assert (told.model.options.ubatch, told.model.options.batch) == (64, 96)


async def test_vllms_options_are_not_llama_cpps(modelled: MakeGpud, llama_server: Path) -> None:
    async with calling(modelled(llama_server).start()) as api:
        options = models_pb2.ModelOptions(max_num_seqs=4)
        refusal = await refused_stream(
            api.instances.LoadModel(pb.LoadModelRequest(model="tiny", options=options))
        )
        assert refusal.fields == ("max_num_seqs",)
        assert "an option of vllm, not of llama_cpp" in refusal.message


async def test_a_build_without_the_flag_is_named_and_nothing_is_left(stubbed: MakeGpud) -> None:
    """The stub is of a build that lacks one of the reviewed flags."""
    models = '[models.polled]\npath = "tiny.gguf"\nextra_args = ["--poll", "0"]\n'
    daemon = stubbed(models=models)
    daemon.config.touch(mode=0o644)
    async with calling(daemon.start()) as api:
        for only_look in (True, False):
            asked = pb.LoadModelRequest(model="polled", devices=["host"], validate_only=only_look)
            refusal = await refused_stream(api.instances.LoadModel(asked))
            assert refusal.reason == "OPTION_INVALID"
            assert refusal.fields == ("extra_args",)
            assert "(0.0.1 (build 1, commit stub)) does not know --poll" in refusal.message
            # A rehearsal says so before there is anything of it.
            assert bool(await instances(api)) is not only_look
        assert daemon.leftovers() == []


# A value of each form that has no list of words.
SAMPLES = {"--chat-template": "chatml", "--poll": "50", "--prio": "0"}


def test_this_build_takes_every_reviewed_flag_that_it_names(llama_server: Path) -> None:
    """All of them at once, but for those that exclude each other; then the file is missing."""
    reviewed = REVIEWED[EngineKind.LLAMA_CPP]
    told = subprocess.run(
        [llama_server, "--help"], capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    known = read_flags(told.stdout)
    argv: list[str] = []
    for flag, form in reviewed.items():
        if flag in known and not flag.startswith("--no-"):
            value = SAMPLES.get(
                flag, "1" if form and "[0-9]" in form else (form or "").split("|")[0]
            )
            argv += [flag, value] if form is not None else [flag]
    assert len(argv) > 50
    assert check_extra_args(EngineKind.LLAMA_CPP, argv[:60]) == tuple(argv[:60])
    for more in ([], ["--no-slots", "--no-jinja", "--no-cache-prompt", "--no-context-shift"]):
        ended = subprocess.run(
            [llama_server, "--model", "/nonexistent.gguf", "--port", "1", *argv, *more],
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        said = ended.stdout + ended.stderr
        assert "invalid argument" not in said
        assert "error while handling argument" not in said
        assert "/nonexistent.gguf" in said
