"""Pure: the catalogue's entry that an instance is started from, while it is for its engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpud.errors import ModelNotFound

if TYPE_CHECKING:
    from gpud.instances.instance import Instance
    from gpud.models.catalogue import Catalogue
    from gpud.models.model import Model


@dataclass(kw_only=True, eq=False)
class EntryChanged(ModelNotFound):
    """Its entry came to be for another engine: that one's words say nothing of how to start it."""

    reason = "MODEL_GONE"

    instance: str
    engine: str
    entry_engine: str

    @property
    def problem(self) -> str:
        """What became of the entry, without its name."""
        return f"is an entry for {self.entry_engine} now, not for {self.engine} any more"

    def __str__(self) -> str:
        return (
            f"cannot go on with {self.instance}: {self.name} {self.problem}; "
            f"`gpuctl load {self.name.removeprefix('models/')}` loads what it says now"
        )


def entry_of(catalogue: Catalogue, instance: Instance) -> Model:
    """The entry of an instance's model. Raises ModelNotFound, EntryChanged where it is another."""
    entry = catalogue.get(instance.model)
    if entry.engine is not instance.engine:
        raise EntryChanged(
            name=f"models/{instance.model}",
            instance=instance.name,
            engine=instance.engine.value,
            entry_engine=entry.engine.value,
        )
    return entry
