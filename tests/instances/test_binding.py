"""What the shim binds a tree to: CPUs, memory node, cgroup, locked memory; and what it tells."""

from __future__ import annotations

import asyncio
import os
import resource
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.clock import SystemClock
from gpud.instances.tree import binding, cgroup, locking, shim
from gpud.instances.tree.binding import Binding
from gpud.instances.tree.launcher import LaunchSpec, ProcessLauncher, ProcessTree

Launch = Callable[[Binding], Awaitable[ProcessTree]]
NODE_0 = Path("/sys/devices/system/node/node0")
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@pytest.fixture
async def launch(tmp_path: Path) -> AsyncIterator[Launch]:
    clock = SystemClock()
    launcher = ProcessLauncher(clock, clock.now().boot_id)
    trees = []

    async def start(bound: Binding) -> ProcessTree:
        spec = LaunchSpec(
            instance="i-9",
            reservation="r-9",
            argv=("/bin/sleep", "100"),
            environment={"PATH": "/usr/bin:/bin"},
            directory=tmp_path,
            token=secrets.token_hex(16),
            binding=bound,
        )
        trees.append(await launcher.spawn(spec))
        await trees[-1].go()
        return trees[-1]

    async with asyncio.timeout(60):
        yield start
        for tree in trees:
            tree.kill()
            await tree.gone()


def status(pid: int | None, name: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines)[name]


def memory_policies(pid: int | None) -> set[str]:
    """Of each area that it has mapped."""
    areas = Path(f"/proc/{pid}/numa_maps").read_text().splitlines()
    return {line.split()[1] for line in areas}


@given(
    st.builds(
        Binding,
        cpus=st.lists(st.integers(0, 4095), unique=True).map(tuple),
        memory_node=st.none() | st.integers(0, 63),
        cgroup=TEXT,
        lock_memory=st.booleans(),
        problems=st.lists(TEXT).map(tuple),
    )
)
def test_a_binding_reads_back_as_it_was_told(bound: Binding) -> None:
    assert binding.told(binding.record(bound).encode()) == bound


def test_the_shim_reads_what_it_is_handed() -> None:
    bound = Binding(cpus=(1, 3), memory_node=0, cgroup="/c", lock_memory=True)
    packed = shim.pack(("/bin/x", "-y"), {"A": "b=c"}, bound)
    assert shim.unpack(packed[8:]) == ([b"/bin/x", b"-y"], {b"A": b"b=c"}, bound)


async def test_cpus_are_inherited_by_the_engine(launch: Launch) -> None:
    cpu = max(os.sched_getaffinity(0))
    tree = await launch(Binding(cpus=(cpu, 4000)))
    assert status(tree.engine_pid(), "Cpus_allowed_list") == str(cpu)
    assert tree.bound() == Binding(cpus=(cpu,)), "what the cpuset does not allow is left out"


async def test_cpus_that_nobody_may_use_are_told_and_the_engine_runs_anywhere(
    launch: Launch,
) -> None:
    tree = await launch(Binding(cpus=(4000, 4001)))
    here = status(os.getpid(), "Cpus_allowed_list")
    assert status(tree.engine_pid(), "Cpus_allowed_list") == here
    (problem,) = tree.bound().problems
    assert problem.startswith("CPUs 4000,4001: none is among those allowed, ")
    assert tree.bound().cpus == ()


@pytest.mark.skipif(not NODE_0.exists(), reason="a kernel without NUMA")
async def test_memory_is_taken_from_the_node_first(launch: Launch) -> None:
    tree = await launch(Binding(memory_node=0))
    assert tree.bound() == Binding(memory_node=0)
    assert memory_policies(tree.engine_pid()) == {"prefer:0"}


@pytest.mark.parametrize("node", [1000, 5000])
async def test_a_node_that_is_not_there_is_told(launch: Launch, node: int) -> None:
    tree = await launch(Binding(memory_node=node))
    assert tree.bound().memory_node is None
    assert f"memory node {node}: " in tree.bound().problems[0]
    assert tree.engine_exit() is None


async def test_the_cgroup_is_joined_before_the_engine_runs(launch: Launch, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    tree = await launch(Binding(cgroup=str(own)))
    assert (own / "cgroup.procs").read_text() == str(tree.identity.pid)
    assert tree.bound() == Binding(cgroup=str(own))


async def test_a_cgroup_that_cannot_be_joined_is_told(launch: Launch, tmp_path: Path) -> None:
    tree = await launch(Binding(cgroup=str(tmp_path / "gone")))
    assert tree.bound().cgroup == ""
    assert tree.bound().problems == (f"cgroup {tmp_path}/gone: No such file or directory",)


async def test_the_engine_may_lock_up_to_the_hard_limit(launch: Launch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (4096, hard))
    try:
        tree = await launch(Binding(lock_memory=True))
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (soft, hard))
    pid = tree.engine_pid()
    assert pid is not None
    assert resource.prlimit(pid, resource.RLIMIT_MEMLOCK) == (hard, hard)


async def test_a_shim_that_said_nothing_bound_nothing(launch: Launch, tmp_path: Path) -> None:
    tree = await launch(Binding(cpus=(0,)))
    (tmp_path / binding.BINDING_FILE).unlink()
    assert tree.bound() == Binding(problems=("the shim did not say what it is bound to",))


# The daemon's side: how much may be locked, and where a cgroup may be made.


def proc_of(root: Path, *, uid: int, effective: int = 0, ambient: int = 0) -> Path:
    (root / "self").mkdir(parents=True)
    full = (1 << 41) - 1
    (root / "self/status").write_text(
        f"Name:\tgpud\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nVmLck:\t 12 kB\n"
        f"CapEff:\t{effective:016x}\nCapBnd:\t{full:016x}\nCapAmb:\t{ambient:016x}\n"
    )
    return root


LOCKER = 1 << locking.CAP_IPC_LOCK


@pytest.mark.parametrize(
    ("uid", "effective", "ambient", "unlimited"),
    [
        (0, LOCKER, 0, True),
        (0, 0, 0, False),
        (1000, LOCKER, 0, False),  # lost at the execution of the engine
        (1000, LOCKER, LOCKER, True),
        (1000, 0, 0, False),
    ],
)
def test_the_limit_holds_for_those_without_the_capability(
    tmp_path: Path, uid: int, effective: int, ambient: int, unlimited: bool
) -> None:
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    proc = proc_of(tmp_path, uid=uid, effective=effective, ambient=ambient)
    free = unlimited or hard == resource.RLIM_INFINITY
    assert locking.limit_bytes(proc) == (None if free else hard)


def test_locked_memory_is_read(tmp_path: Path) -> None:
    proc_of(tmp_path, uid=0)
    (tmp_path / "self").rename(tmp_path / "77")
    assert locking.locked_bytes(77, tmp_path) == 12 * 1024
    assert locking.locked_bytes(78, tmp_path) is None


def delegated(root: Path, membership: str, **controllers: str) -> None:
    """A v2 mount of the test's own; names of folders spell / as __."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(membership)
    for name, given_below in controllers.items():
        folder = root / "sys/fs/cgroup" / name.replace("__", "/")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup.subtree_control").write_text(given_below)


def test_instances_have_cgroups_below_a_delegated_one(tmp_path: Path) -> None:
    delegated(tmp_path, "0::/gpud\n", gpud="cpu memory pids\n")
    cgroups = cgroup.find(tmp_path)
    assert cgroups is not None
    own = Path(cgroups.make("i-1"))
    assert own.parent == tmp_path / "sys/fs/cgroup/gpud"
    assert (own / "memory.swap.max").read_text() == "0\n"
    (own / "memory.swap.max").unlink()  # in the kernel's, files are no reason to stay
    cgroups.remove("i-1")
    assert not own.exists()
    cgroups.remove("i-1")


@pytest.mark.parametrize(
    ("membership", "controllers"),
    [
        ("0::/gpud\n", {"gpud": "cpu pids\n"}),
        ("0::/gpud\n", {}),
        ("4:memory:/gpud\n", {"gpud": "memory\n"}),
        ("4:memory:/x\n0::/\n", {"x": "memory\n"}),
        ("0::/../outside\n", {"gpud": "memory\n"}),
        # The parent gives memory to its children, but is not ours: nobody marked it so.
        ("0::/slice/gpud\n", {"slice": "memory\n", "slice__gpud": ""}),
    ],
)
def test_without_delegation_there_are_none(
    tmp_path: Path, membership: str, controllers: dict[str, str]
) -> None:
    delegated(tmp_path, membership, **controllers)
    assert cgroup.find(tmp_path) is None


def test_a_daemon_in_a_leaf_of_its_delegated_cgroup_finds_it(tmp_path: Path) -> None:
    delegated(tmp_path, "0::/gpud.service/daemon\n", gpud="")
    service = tmp_path / "sys/fs/cgroup/gpud.service"
    (service / "daemon").mkdir(parents=True)
    control = service / "cgroup.subtree_control"
    control.write_text("pids\n")
    assert cgroup.find(tmp_path) is None, "memory is not given, and nobody marked it as ours"
    try:
        os.setxattr(service, cgroup.DELEGATED_MARKS[0], b"1")
    except OSError:
        try:
            os.setxattr(service, cgroup.DELEGATED_MARKS[1], b"1")
        except OSError:
            pytest.skip("the test's folder takes no attributes")
    cgroups = cgroup.find(tmp_path)
    assert cgroups is not None
    assert control.read_text() == "+memory", "what systemd leaves for us to switch on"
    assert Path(cgroups.make("i-1")).parent == service


def test_a_cgroup_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    delegated(tmp_path, "0::/gpud\n", gpud="memory\n")
    cgroups = cgroup.find(tmp_path)
    assert cgroups is not None
    (tmp_path / "sys/fs/cgroup/gpud").rename(tmp_path / "sys/fs/cgroup/other")
    with pytest.raises(FileNotFoundError):
        cgroups.make("i-1")
