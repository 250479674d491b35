"""Pure: what servers print each time that gpud looks at them, which tells nobody anything.

llama-server, at the level at which it tells its buffers, prints a line for each answer of
/metrics. At a look every 5 s that would push all that an engine has to say out of the last lines
that people are shown. vLLM is started without its log of requests.
"""

from __future__ import annotations

import re
from typing import Final

from gpud.models.model import EngineKind

# Build 11669: `0.04.013.921 I srv  update_slots: all slots are idle`; older ones have no stamp.
_BY_ENGINE: Final = {
    EngineKind.LLAMA_CPP: r"^(?:[\d.]+ )?(?:[A-Z] )?srv +update_slots: all slots are idle *$",
}
# Whichever engine wrote it: a `command` may be any of them.
_CHATTER: Final = re.compile("|".join(_BY_ENGINE.values()))


def is_chatter(line: str) -> bool:
    """Whether a line is of gpud's own looking."""
    return _CHATTER.search(line) is not None
