"""The shim: the small process that stays beside each engine and outlives the daemon.

A program of its own on the standard library alone, binding.py its only other part, run as
`python -I -S shim.py DIRECTORY [FILES]`. It reads what to execute from its standard input, binds
itself to where that is to run, then waits there for one byte: with it, it starts the engine; at
end of file instead, the daemon is gone, it exits with GATE_CLOSED and nothing ran. So many FILES
were handed to it open, as the descriptors from FIRST_HANDED on; the engine inherits them. From
then on it is

- the engine's parent, so that the exit status is seen whoever else lives or dies;
- the subreaper of everything below the engine, so that what calls setsid, forks twice or clears
  its environment stays a descendant, and "none is left" is a fact that the kernel states (ECHILD);
- the reader of the engine's output, so that the files stay bounded and the pipe never breaks.

It takes SIGTERM (passed on to the engine's main process) and SIGUSR1 (kill the whole tree until
none is left). What it has to tell lies in files, whole or absent: `binding` before the gate, then
engine.json and exit.json. After each of the latter it writes one byte into the FIFO `news`, which
wakes a daemon that watches; removing `news` is its last act, so a shim that is gone and left it
did not end by itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import signal
import sys
import time

if __name__ == "__main__":
    # Isolated, it is told of no folder of ours. Last, so that nothing there hides the library.
    sys.path.append(os.path.abspath(f"{__file__}/../../../.."))

from gpud.instances.tree import binding

GATE_CLOSED = 97  # exit code: the daemon went away before the gate was opened
NOT_EXECUTABLE = 127  # exit code told for an engine that could not be executed, as shells do
GATE_OPEN = b"G"
FIRST_HANDED = 3  # the descriptor after the standard streams

ENGINE_FILE = "engine.json"
EXIT_FILE = "exit.json"
NEWS_FIFO = "news"
OUTPUT_FILE = "output.log"
OLDER_OUTPUT_FILE = "output.log.1"
# When the output was written: a line "INODE OFFSET WALL" for the first of it in each second.
TIMES_FILE = "output.times"
OLDER_TIMES_FILE = "output.times.1"

OUTPUT_LIMIT_BYTES = 4 * 1024 * 1024  # of each of the two output files, with its times
LINE_ROOM_BYTES = 64 * 1024  # of these, kept for the end of the line at which a file is turned
STAMP_SECONDS = 1.0
STAMP_BYTES = 64  # more than a stamp takes
CHUNK_BYTES = 64 * 1024
KILL_TICK_MILLISECONDS = 2  # between two looks at a tree that is killed, but not gone yet
KILL_PASSES = 64  # in one go, before what died is reaped
ENGINE_OOM_SCORE_ADJ = 500  # when memory runs out, the engine goes before daemon and shim

PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36


NOWHERE = binding.Binding()


def pack(
    argv: tuple[str, ...], environment: dict[str, str], bound: binding.Binding = NOWHERE
) -> bytes:
    """What to execute and where, as the shim reads it: a length, then fields that end in NUL.

    Raises ValueError for one that holds a NUL: it would be read as two.
    """
    pairs = [f"{name}={value}" for name, value in environment.items()]
    fields = [*bound.fields()[: binding.FIELD_COUNT], str(len(argv)), *argv, *pairs]
    if any("\0" in field for field in fields):
        raise ValueError("a NUL in what is to be executed")
    payload = b"".join(os.fsencode(field) + b"\0" for field in fields)
    return len(payload).to_bytes(8, "big") + payload


def unpack(payload: bytes) -> tuple[list[bytes], dict[bytes, bytes], binding.Binding]:
    """The argv, environment and binding of `pack`, without its length."""
    told = payload.split(b"\0")[:-1]
    bound = binding.parse(told[: binding.FIELD_COUNT])
    count, *fields = told[binding.FIELD_COUNT :]
    argv, pairs = fields[: int(count)], fields[int(count) :]
    environment = {}
    for pair in pairs:
        name, _, value = pair.partition(b"=")
        environment[name] = value
    return argv, environment, bound


class Output:
    """The engine's output in two files of bounded size, the older one replaced by rotation."""

    def __init__(self) -> None:
        self._stamped = 0.0  # when the last was; wall seconds
        self._open()

    def write(self, data: bytes) -> None:
        """Append; on a full disk the data is lost rather than the engine held up.

        Files are turned at the end of a line, so that each begins with a whole one.
        """
        with contextlib.suppress(OSError):
            room = OUTPUT_LIMIT_BYTES - LINE_ROOM_BYTES - self._size - self._times_size
            if len(data) > room:
                # A line that is longer than all that was kept for it is cut.
                end = data.rfind(b"\n", 0, max(0, room + LINE_ROOM_BYTES - STAMP_BYTES)) + 1
                self._append(data[:end])
                self._turn()
                data = data[end:]
            self._append(data)

    def _append(self, data: bytes) -> None:
        if data:
            self._stamp()
        while data:
            written = os.write(self._fd, data)
            self._size += written
            data = data[written:]

    def _turn(self) -> None:
        os.replace(OUTPUT_FILE, OLDER_OUTPUT_FILE)
        full, its_times = self._fd, self._times
        with contextlib.suppress(OSError):
            os.replace(TIMES_FILE, OLDER_TIMES_FILE)
        self._open()
        os.close(full)
        with contextlib.suppress(OSError):
            os.close(its_times)

    def _stamp(self) -> None:
        """Say when what comes next was written; a clock that was set back is believed too."""
        now = time.time()
        if 0 <= now - self._stamped < STAMP_SECONDS:
            return
        # Without room for it, or a file, the output is still written.
        with contextlib.suppress(OSError):
            line = b"%d %d %.3f\n" % (self._inode, self._size, now)
            self._times_size += os.write(self._times, line)
            self._stamped = now

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(OUTPUT_FILE, flags, 0o600)
        status = os.fstat(self._fd)
        self._size, self._inode = status.st_size, status.st_ino
        self._times, self._times_size = -1, 0
        self._stamped = 0.0
        with contextlib.suppress(OSError):
            self._times = os.open(TIMES_FILE, flags, 0o600)
            self._times_size = os.fstat(self._times).st_size


class Shim:
    """One engine, its descendants, and the loop that watches them."""

    def __init__(self) -> None:
        # Opened for reading too: so opening never waits, and writing never breaks.
        self._news = os.open(NEWS_FIFO, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._output = Output()
        self._signals, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._engine_output, self._engine_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._engine_output, False)
        self._poll = select.poll()
        self._poll.register(self._signals, select.POLLIN)
        self._poll.register(self._engine_output, select.POLLIN)
        # The wakeup descriptor carries each signal's number; the handlers only have to exist.
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, lambda *_: None)
        self._engine: int | None = None
        self._killing = False
        self._childless = False
        self._output_ended = False

    def start(self, argv: list[bytes], environment: dict[bytes, bytes]) -> None:
        """Execute the engine as the leader of a process group of its own."""
        try:
            self._engine = os.posix_spawn(
                argv[0],
                argv,
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, self._engine_end, 1),
                    (os.POSIX_SPAWN_DUP2, self._engine_end, 2),
                ],
                setpgroup=0,
                setsigmask=(),
                setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
            )
        except OSError as error:
            reason = os.fsencode(os.strerror(error.errno or 0))
            self._output.write(b"cannot execute %s: %s\n" % (argv[0], reason))
            self._tell(EXIT_FILE, exit_record(NOT_EXECUTABLE, error.errno or 0))
            return
        finally:
            os.close(self._engine_end)
        raise_oom_score(self._engine)
        start_time = int(stat_fields(self._engine)[STAT_START_TIME])
        self._tell(ENGINE_FILE, f'{{"pid": {self._engine}, "start_time": {start_time}}}')

    def watch(self) -> None:
        """Until no descendant is left: move output, reap, pass signals on, kill when told."""
        self._reap()
        while not self._childless:
            tick = KILL_TICK_MILLISECONDS if self._killing else None
            for fd, _ in self._poll.poll(tick):
                if fd == self._signals:
                    self._take_signals()
                else:
                    self._move_output()
            if self._killing:
                self._kill_descendants()
            self._reap()
        self._move_output()
        with contextlib.suppress(OSError):
            os.unlink(NEWS_FIFO)

    def _take_signals(self) -> None:
        numbers = os.read(self._signals, CHUNK_BYTES)
        if signal.SIGTERM in numbers and self._engine is not None:
            os.kill(self._engine, signal.SIGTERM)
        if signal.SIGUSR1 in numbers:
            self._killing = True

    def _move_output(self) -> None:
        """Move what was written so far into the files."""
        while not self._output_ended:
            try:
                data = os.read(self._engine_output, CHUNK_BYTES)
            except BlockingIOError:
                return
            if not data:
                self._poll.unregister(self._engine_output)
                self._output_ended = True
                return
            self._output.write(data)

    def _reap(self) -> None:
        """Take the status of each descendant that has ended; ECHILD: there is none any more."""
        while not self._childless:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._childless = True
                return
            if pid == 0:
                return
            if pid == self._engine:
                self._engine = None
                self._move_output()  # first, so that who reads the exit finds the last lines
                self._tell(EXIT_FILE, exit_record(os.waitstatus_to_exitcode(status)))

    def _kill_descendants(self) -> None:
        """SIGKILL all that can be seen, pass by pass until a pass sees nobody new.

        A process with SIGKILL pending cannot fork any more, so stopping it first would gain
        nothing. One that forks and exits without end is met among our own children, because each
        of its parents' deaths leaves it to us.
        """
        killed: set[int] = set()
        for _ in range(KILL_PASSES):
            fresh = 0
            # Ours to reap, so these pids cannot have become somebody else's.
            parents = children_of(os.getpid())
            for pid in parents:
                os.kill(pid, signal.SIGKILL)
            while parents:
                parent = parents.pop()
                fresh += parent not in killed
                killed.add(parent)
                parents += [pid for pid in children_of(parent) if kill_child(pid, parent)]
            if not fresh:
                return

    def _tell(self, name: str, record: str) -> None:
        """Write a file whole or not at all, then wake who watches.

        No fsync: after a power loss the boot is another one, and nobody adopts from these.
        """
        try:
            write_atomically(name, record)
        except OSError:
            # A full disk: the older half of the output gives its room.
            with contextlib.suppress(OSError):
                os.unlink(OLDER_OUTPUT_FILE)
                write_atomically(name, record)
        with contextlib.suppress(BlockingIOError):
            os.write(self._news, b".")


STAT_PARENT = 1  # fields of /proc/PID/stat, counted from the state, which is the third
STAT_START_TIME = 19


def stat_fields(pid: int) -> list[bytes]:
    """/proc/PID/stat from the state on. Raises OSError when there is no such process."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        # The command's name stands in parentheses and may hold anything, parentheses too.
        return file.read().rpartition(b")")[2].split()


def children_of(pid: int) -> list[int]:
    """Its children now, zombies among them; those of one that is gone: none."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    found: list[int] = []
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
        except OSError:
            # The thread has ended, and its children are another's; or the kernel was built
            # without CONFIG_PROC_CHILDREN.
            if not os.path.exists(OWN_CHILDREN_FILE):
                return scan_for_children(pid)
    return found


OWN_CHILDREN_FILE = f"/proc/self/task/{os.getpid()}/children"


def scan_for_children(pid: int) -> list[int]:
    """The same, found the long way round."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if int(stat_fields(int(name))[STAT_PARENT]) == pid:
                    found.append(int(name))
            except OSError:
                continue
    return found


def kill_child(pid: int, parent: int) -> bool:
    """SIGKILL the process if it is still a child of `parent`, which may reap it at any time."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if int(stat_fields(pid)[STAT_PARENT]) != parent:
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(pidfd)
    return True


def exit_record(status: int, error: int = 0) -> str:
    """exit.json of an exit code, or of minus a signal's number; `error` kept it from starting."""
    code, number = (status, "null") if status >= 0 else ("null", -status)
    why = f', "errno": {error}' if error else ""
    return f'{{"code": {code}, "signal": {number}, "wall": {time.time()}{why}}}'


def write_atomically(name: str, text: str) -> None:
    """The file appears with all of its content, or not."""
    fd = os.open(f"{name}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        if os.write(fd, text.encode()) != len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(fd)
    os.replace(f"{name}.new", name)


def raise_oom_score(pid: int) -> None:
    """Best effort: without /proc mounted for writing, the kernel's own choice stands."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/oom_score_adj", "w") as file:
        file.write(str(ENGINE_OOM_SCORE_ADJ))


def read_exactly(count: int) -> bytes:
    """From standard input; its end before that ends the program."""
    data = b""
    while len(data) < count:
        more = os.read(0, count - len(data))
        if not more:
            sys.exit(GATE_CLOSED)
        data += more
    return data


def settle(first_unknown: int) -> None:
    """Leave behind what was inherited, from this descriptor on, and become a subreaper."""
    os.closerange(first_unknown, os.sysconf("SC_OPEN_MAX"))
    os.umask(0o077)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    # Before the gate is open they end the shim, and with it the start.
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NAME, b"gpud-shim", 0, 0, 0)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become a subreaper")


def main() -> None:
    """Settle, read what to execute, wait at the gate, stay."""
    os.chdir(sys.argv[1])
    handed_end = FIRST_HANDED + (int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    settle(handed_end)
    argv, environment, bound = unpack(read_exactly(int.from_bytes(read_exactly(8), "big")))
    # A full disk: then nobody is told, and the engine runs bound all the same.
    with contextlib.suppress(OSError):
        write_atomically(binding.BINDING_FILE, binding.record(binding.apply(bound)))
    if read_exactly(1) != GATE_OPEN:
        sys.exit(GATE_CLOSED)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    shim = Shim()
    shim.start(argv, environment)
    os.closerange(FIRST_HANDED, handed_end)  # the engine's alone from here on
    shim.watch()


if __name__ == "__main__":
    main()
