"""Pure: the refusal of who asks for devices of which there are none."""

from __future__ import annotations

from dataclasses import dataclass

from gpud.errors import VramInsufficient
from gpud.units import format_size


@dataclass(kw_only=True, eq=False)
class NoDevice(VramInsufficient):
    """There is nothing to choose among: no card, or nothing of the kind that was asked for."""

    kind: str = ""  # asked for; empty: any card
    has_host: bool = True  # the host's memory is a device

    def __str__(self) -> str:
        what = f"cannot promise {format_size(self.needed_bytes)}"
        if self.kind not in {"", "host"}:
            none = f"there is no device of the kind {self.kind} here"
            return f"{what}: {none}; `gpuctl devices` shows what there is"
        if self.has_host:
            return f"{what}: there is no card here; to run it in RAM: --device host"
        none = "the host's RAM is no device here (devices.host is off)"
        if self.kind == "host":
            return f"{what}: {none}; ask for a card, or turn it on to use RAM"
        return f"{what}: there is no card here, and {none}; turn it on to run in RAM"
