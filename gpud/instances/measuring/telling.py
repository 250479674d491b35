"""Pure: how far an engine's word of what it allocated is believed.

A build may word a line otherwise, and a full disk may drop one. What was not told must not be
learned as not taken: neither of this model, nor of the process around it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gpud.engines.engine import Covered
from gpud.models.learned import expected_bytes
from gpud.models.model import Footprint, FootprintWhat
from gpud.units import MIB

# Without these there is no telling what the rest is of.
_NEEDED: Final = (FootprintWhat.WEIGHTS, FootprintWhat.KV_CACHE, FootprintWhat.STATE)
# Weights lie in memory as in their files, a matrix that is used twice perhaps twice.
MOST_OF_FILES: Final = 2
SLACK_BYTES: Final = 64 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The engine's word of what it allocated.

    `engine_bytes` None: it did not tell, so all of its processes count. `covered` None: what it
    told is of all of its buffers.
    """

    engine_bytes: int | None
    covered: Covered | None = None


UNTOLD: Final = Told(engine_bytes=None)


def believed(told: Told, footprint: Footprint | None, file_bytes: int | None) -> Told:
    """What of an engine's word can be used, against the footprint that it was promised.

    `file_bytes` are of the model's files; None: not known. What tells no weights, cache or state
    where the law has them is no word, nor one of weights that no such files hold.
    """
    covered = told.covered
    if covered is None or footprint is None:
        return told
    if file_bytes is not None and covered.weights_bytes > MOST_OF_FILES * file_bytes + SLACK_BYTES:
        return UNTOLD
    missing = frozenset(_NEEDED) - covered.what
    if missing and expected_bytes(footprint, is_whole=False, covers=missing):
        return UNTOLD
    known = expected_bytes(footprint, is_whole=False, covers=covered.what)
    if known == expected_bytes(footprint, is_whole=False):
        return Told(engine_bytes=told.engine_bytes)
    return told
