"""The estimate beside what llama-server itself says that it allocated.

    LLAMA_SERVER=… python -m tests.models.truth [--items]

prints the table of the whole grid (grid/cells.py), in two minutes. The server loads phantoms
(phantoms.py), so a cell takes a fraction of a second.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gpud.devices.snapshot import DeviceKind
from gpud.engines.llama.output import parse_buffers
from gpud.models.footprint import DeviceTraits, estimate
from gpud.models.gguf import read_header
from gpud.models.model import Footprint, FootprintWhat, ModelOptions
from tests.models.grid.cells import GRID, MODELS, Cell
from tests.real_engine import MISSING, find_server

LOAD_SECONDS = 30.0
HOST = DeviceTraits(kind=DeviceKind.HOST, model_name="host")
# Beside the server's own buffers: nothing that it prints.
UNPRINTED = {FootprintWhat.CONTEXT, FootprintWhat.MARGIN}
FLAGS = {
    "context_length": "-c", "parallel": "-np", "batch": "-b", "ubatch": "-ub",
    "cache_type_k": "-ctk", "cache_type_v": "-ctv", "flash_attention": "-fa",
}  # fmt: skip
# Buffers as large as the file says and nothing beside them, each told.
QUIET = ("-lv", "4", "--no-warmup", "--no-repack", "--cache-ram", "0", "-fit", "off")
LOADED = re.compile(r"model loaded|exiting due to|couldn't bind|error: ")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Ours and theirs, in bytes by item."""

    cell: Cell
    footprint: Footprint
    printed: dict[FootprintWhat, int]

    @property
    def estimated(self) -> dict[FootprintWhat, int]:
        return {
            item.what: item.bytes for item in self.footprint.items if item.what not in UNPRINTED
        }

    @property
    def ratio(self) -> float:
        return sum(self.estimated.values()) / sum(self.printed.values())

    @property
    def short_bytes(self) -> int:
        """How far the estimate without its margin lies under what the server took."""
        return sum(self.printed.values()) - sum(self.estimated.values())


EXACT = (FootprintWhat.WEIGHTS, FootprintWhat.KV_CACHE, FootprintWhat.STATE)
PRINTED_BYTES = 25_000  # the server prints hundredths of a MiB, a line a buffer


def wrong(told: Comparison) -> list[str]:
    """What of a cell is not as it should be."""
    found = []
    if not 0.95 <= told.ratio <= 1.05:
        found.append(f"{told.cell.name}: {told.ratio:.3f} of what the server took")
    if told.short_bytes > told.footprint.margin_bytes:
        found.append(f"{told.cell.name}: {told.short_bytes} B short, more than the margin")
    for exact in EXACT:
        ours, theirs = told.estimated.get(exact, 0), told.printed.get(exact, 0)
        if abs(ours - theirs) > PRINTED_BYTES:
            found.append(f"{told.cell.name}: {exact.value} {ours}, the server says {theirs}")
    return found


class Workbench:
    """A server and a folder of models, each written when it is first asked for."""

    def __init__(self, server: Path, folder: Path) -> None:
        self.server = server
        self.folder = folder

    def compare(self, wanted: Cell) -> Comparison:
        path = self.folder / f"{wanted.model}.gguf"
        if not path.exists():
            MODELS[wanted.model](path)
        with path.open("rb") as file:
            header = read_header(file, path.stat().st_size)
        return Comparison(
            cell=wanted,
            footprint=estimate(header, wanted.options, HOST),
            printed=self.printed(path, wanted.options),
        )

    def printed(self, path: Path, options: ModelOptions) -> dict[FootprintWhat, int]:
        """What the server says of its buffers, summed by item."""
        sums: dict[FootprintWhat, int] = {}
        for buffer in parse_buffers(tuple(self._load(path, options))):
            if buffer.bytes:
                sums[buffer.what] = sums.get(buffer.what, 0) + buffer.bytes
        return sums

    def _load(self, path: Path, options: ModelOptions) -> Iterator[str]:
        flags = [
            word
            for name, flag in FLAGS.items()
            if (value := getattr(options, name)) is not None
            for word in (flag, str(value))
        ]
        flags += ["--kv-unified"] * bool(options.kv_unified)
        flags += ["--embedding"] * bool(options.embedding)
        server = subprocess.Popen(
            [self.server, "-m", path, "--host", self.folder / "socket.sock", *QUIET, *flags],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        watchdog = threading.Timer(LOAD_SECONDS, server.kill)
        watchdog.start()
        try:
            assert server.stderr is not None
            lines: list[str] = []
            for line in server.stderr:
                lines.append(line)
                if LOADED.search(line):
                    break
            if "model loaded" not in lines[-1]:
                raise RuntimeError(f"{path.name} {flags} did not load: {''.join(lines[-5:])}")
            return iter(lines)
        finally:
            watchdog.cancel()
            server.kill()
            server.communicate()
            with contextlib.suppress(FileNotFoundError):
                (self.folder / "socket.sock").unlink()


def table(comparisons: list[Comparison], *, items: bool = False) -> str:
    """A row a cell, its parts too if wanted, and the furthest of them all."""
    rows = [f"{'cell':58} {'estimate':>13} {'server':>13} {'ratio':>6}"]
    for each in comparisons:
        ours, theirs = each.estimated, each.printed
        rows.append(row(each.cell.name, sum(ours.values()), sum(theirs.values())))
        for what in FootprintWhat if items else ():
            if ours.get(what) or theirs.get(what):
                rows.append(row(f"    {what.value}", ours.get(what, 0), theirs.get(what, 0)))
    return "\n".join((*rows, summary(comparisons)))


def summary(comparisons: list[Comparison]) -> str:
    """How many there are, and the furthest above and below the truth."""
    over = max(comparisons, key=lambda each: each.ratio)
    under = min(comparisons, key=lambda each: each.ratio)
    beyond = [each for each in comparisons if each.short_bytes > each.footprint.margin_bytes]
    return (
        f"{len(comparisons)} cells of {len({each.cell.model for each in comparisons})} models; "
        f"furthest over {over.ratio:.4f} ({over.cell.name}), "
        f"under {under.ratio:.4f} ({under.cell.name}); {len(beyond)} short of more than the margin"
    )


def row(name: str, ours: int, theirs: int) -> str:
    ratio = f"{ours / theirs:6.3f}" if theirs else "     –"
    return f"{name:58} {ours:13} {theirs:13} {ratio}"


def main() -> None:
    server = find_server()
    if server is None:
        sys.exit(MISSING)
    with tempfile.TemporaryDirectory() as folder:
        workbench = Workbench(server, Path(folder))
        done = [workbench.compare(wanted) for wanted in GRID]
        print(table(done, items="--items" in sys.argv))


if __name__ == "__main__":
    main()
