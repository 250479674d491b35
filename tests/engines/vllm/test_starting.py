"""What a start of vLLM does, by its output: of a real run on a CPU, and of 0.32's source."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpud.engines.vllm.starting import BEGINNING, load_step

START = (Path(__file__).parents[2] / "golden/vllm/start.txt").read_text().splitlines()


def test_a_start_gets_further_line_by_line_and_says_what_it_does() -> None:
    told = [load_step(tuple(START[: end + 1])) for end in range(len(START))]
    assert told[0] == load_step(()) == BEGINNING
    known = [each.fraction for each in told if each.fraction is not None]
    assert known == sorted(known)
    assert known[-1] == 1.0
    assert list(dict.fromkeys(each.detail for each in told)) == [
        "its program starts",
        "reads the model's configuration",
        "starts the engine core of LlamaForCausalLM",
        "starts its workers",
        "loads the weights",
        "loads 0.23 GiB of weights",
        "loads the weights: 0 of 1 files",
        "loads the weights: 1 of 1 files",
        "the weights are loaded: measures a step",
        "a KV cache of 32,768 tokens: warms up",
        "the engine is ready: its server starts",
        "its server has started",
    ]


@pytest.mark.parametrize(
    ("line", "detail", "fraction"),
    [
        (
            "Loading safetensors checkpoint shards:  50% Completed | 2/4 [00:01<00:01,  1.9it/s]",
            "loads the weights: 2 of 4 files",
            0.65,
        ),
        (
            "Loading safetensors checkpoint shards (eager):   0% Completed | 0/4 [00:00<?, ?it/s]",
            "loads the weights: 0 of 4 files",
            0.5,
        ),
        (
            "(EngineCore pid=2) INFO Dynamo bytecode transform time: 4.51 s",
            "compiles the model: its graph is traced",
            0.82,
        ),
        ("INFO torch.compile took 17.20 s in total", "the model was compiled in 17.20 s", 0.86),
        (
            "Capturing CUDA graphs (decode, FULL):  50%|█████     | 4/8 [00:01<00:01,  3.1it/s]",
            "captures CUDA graphs: 4 of 8",
            0.92,
        ),
        (
            "(Worker pid=3) INFO Graph capturing finished in 21 secs, took 0.50 GiB",
            "the CUDA graphs are captured",
            0.94,
        ),
    ],
)
def test_a_line_tells_what_comes_next(line: str, detail: str, fraction: float) -> None:
    told = load_step(("(APIServer pid=1) INFO non-default args: {}", line, "of no interest"))
    assert told.detail == detail
    assert told.fraction == pytest.approx(fraction)
