"""Pure: the refusal of who asks for devices of which there are none."""

from __future__ import annotations

from dataclasses import dataclass

from gpud.errors import DeviceNotFound, VramInsufficient
from gpud.units import format_size


@dataclass(kw_only=True, eq=False)
class NoDevice(VramInsufficient):
    """There is nothing to choose among: no card, or nothing of the kind that was asked for."""

    kind: str = ""  # asked for; empty: any card
    has_host: bool = True  # the host's memory is a device
    trouble: str = ""  # why cards that are here cannot be used; empty: nothing is known of that

    def __str__(self) -> str:
        what = f"cannot promise {format_size(self.needed_bytes)}"
        if self.kind not in {"", "host"}:
            none = f"there is no device of the kind {self.kind} here"
            return f"{what}: {none}; `gpuctl devices` shows what there is"
        cards = "there is no card here"
        if self.trouble:
            cards = f"no card can be used here ({self.trouble})"
        if self.has_host:
            return f"{what}: {cards}; to run it in RAM: --device host"
        none = "the host's RAM is no device here (devices.host is off)"
        if self.kind == "host":
            return f"{what}: {none}; ask for a card, or turn it on to use RAM"
        return f"{what}: {cards}, and {none}; turn it on to run in RAM"


@dataclass(kw_only=True, eq=False)
class DeviceUnseen(DeviceNotFound):
    """No device of that name, while a driver, or a card of it, cannot be used."""

    trouble: str

    def __str__(self) -> str:
        return f"{super().__str__()}; gpud {self.trouble}"
