"""What vLLM 0.32 printed on a CPU, read: each text is of a real run."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpud.engines.vllm import output
from gpud.models.model import FootprintWhat
from gpud.units import GIB

GOLDEN = Path(__file__).parents[2] / "golden/vllm"


def lines(name: str) -> tuple[str, ...]:
    return tuple((GOLDEN / f"{name}.txt").read_text().splitlines())


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("no_room_for_cache", "its KV cache does not fit into memory"),
        (
            "cache_too_small",
            "its KV cache does not hold one sequence of context_length tokens",
        ),
        ("cut_weights", "a file of its weights is damaged"),
        ("core_killed", "one of its own processes ended"),
        ("told_to_stop", "it was told to stop"),
        ("start", ""),
    ],
)
def test_an_end_is_explained(name: str, meaning: str) -> None:
    assert output.explain_exit(lines(name)) == meaning


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried", "it ran out of device memory"),
        (
            "ValueError: Free memory on device cuda:0 (3/80 GiB) on startup is less than desired "
            "GPU memory utilization",
            "less of the card is free than its promise",
        ),
        ("OSError: [Errno 98] Address already in use", "its port is taken"),
        ("vllm: error: unrecognized arguments: --bogus", "this build refuses an argument"),
        (
            "ValueError: Model architectures ['X'] are not supported for now.",
            "this vLLM does not know the architecture",
        ),
        ("Sleep mode is not supported on current platform.", "it cannot sleep on this platform"),
        ("all is well", ""),
    ],
)
def test_a_line_is_explained(line: str, meaning: str) -> None:
    assert output.explain_exit((line,)) == meaning


def test_one_that_will_never_be_ready_is_known_by_its_words_while_it_lives() -> None:
    found = output.hopeless(lines("no_room_for_cache"))
    assert found.startswith("its KV cache does not fit into memory: Available memory on node 0")
    assert output.hopeless(lines("cache_too_small")).startswith("its KV cache does not hold one")
    assert output.hopeless(lines("cut_weights")).startswith("a file of its weights is damaged")
    assert output.hopeless(lines("start")) == ""
    assert output.hopeless(lines("told_to_stop")) == ""


def test_it_is_known_at_the_worker_s_own_words() -> None:
    """Within the very lines of the worker, before the API server has noticed."""
    text = lines("cut_weights")
    first = next(at for at, line in enumerate(text) if "WorkerProc failed to start" in line)
    assert output.hopeless(text[: first + 1])
    assert not output.hopeless(text[:first])


def test_bytes_of_a_card_are_weights_cache_and_graphs() -> None:
    text = (
        "(APIServer pid=1) INFO non-default args: {'kv_cache_memory_bytes': 1073741824}",
        "(Worker_TP0 pid=2) INFO Model loading took 14.99 GiB memory and 3.2 seconds",
        "(Worker_TP1 pid=3) INFO Model loading took 15.25 GiB memory and 3.2 seconds",
        "(Worker_TP0 pid=2) INFO Graph capturing finished in 21 secs, took 0.50 GiB",
    )
    assert output.measured_bytes(text) == round(15.75 * GIB) + GIB
    assert output.measured_bytes(lines("start")) is None
    told = output.covered(text)
    assert told is not None
    # Its graphs are a part of an item, and of activations and logits it says nothing.
    assert told.what == {FootprintWhat.WEIGHTS, FootprintWhat.KV_CACHE}
    assert told.bytes == round(15.25 * GIB) + GIB
    assert output.covered(lines("start")) is None
