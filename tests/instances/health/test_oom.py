"""How it is known that an engine ended for want of memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpud.instances.health.oom import Kernel, OomKills, words
from gpud.instances.instance import Exit
from gpud.instances.tree.cgroup import Cgroups

KILLED = Exit(code=None, signal=9, wall=0.0)
FAILED = Exit(code=1, signal=None, wall=0.0)
NONE = OomKills(host=3, own=None)


def test_the_kernel_s_counts_are_read(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/vmstat").write_text("pgfault 12\noom_kill 3\n")
    own = tmp_path / "groups" / "instance-a-1"
    own.mkdir(parents=True)
    (own / "memory.events").write_text("low 0\nmax 4\noom 2\noom_kill 1\noom_group_kill 9\n")
    kernel = Kernel(root=tmp_path, cgroups=Cgroups(tmp_path / "groups"))
    assert kernel.oom_kills("a-1") == OomKills(host=3, own=1)
    assert kernel.oom_kills("b-1") == OomKills(host=3, own=None)


def test_this_kernel_tells_or_says_nothing() -> None:
    told = Kernel().oom_kills("x").host
    assert told is None or told >= 0


@pytest.mark.parametrize(
    ("exit_", "before", "after", "said"),
    [
        (KILLED, NONE, OomKills(host=4, own=None), "the host was out of memory"),
        (KILLED, OomKills(host=3, own=0), OomKills(host=4, own=1), "its cgroup's memory"),
        (KILLED, NONE, NONE, ""),
        (KILLED, None, OomKills(host=4, own=1), ""),  # not known from before
        (KILLED, OomKills(host=None, own=None), OomKills(host=None, own=None), ""),
        (FAILED, NONE, OomKills(host=4, own=None), ""),  # it ended by itself
    ],
)
def test_of_a_kill_the_counts_tell(
    exit_: Exit, before: OomKills | None, after: OomKills, said: str
) -> None:
    found = words(exit_, before, after, ("I all is well",))
    assert (said in found) if said else found == ""


@pytest.mark.parametrize(
    "line",
    [
        "E ggml_aligned_malloc: insufficient memory (attempted to allocate 384.00 MB)",
        "cudaMalloc failed: out of memory",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
        "terminate called after throwing an instance of 'std::bad_alloc'",
    ],
)
def test_of_an_end_of_its_own_its_last_words_tell(line: str) -> None:
    found = words(FAILED, NONE, NONE, ("I loading", line, "E exiting"))
    assert line in found
    assert line in words(Exit(code=None, signal=6, wall=0.0), NONE, NONE, (line,))
    for other in (
        Exit(code=0, signal=None, wall=0.0),
        Exit(code=None, signal=11, wall=0.0),
        Exit(code=None, signal=9, wall=0.0),
        Exit(code=None, signal=None, wall=None),
    ):
        assert words(other, NONE, NONE, (line,)) == ""


def test_memory_that_could_not_be_locked_is_there_all_the_same() -> None:
    line = (
        "warning: failed to mlock 1638400-byte buffer (after previously locking 0 bytes): "
        "Cannot allocate memory"
    )
    assert words(FAILED, NONE, NONE, (line, "Try increasing RLIMIT_MEMLOCK")) == ""
