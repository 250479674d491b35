"""Pure: the life of an instance as a table; a step that is not in it raises."""

from __future__ import annotations

import enum

from gpud.errors import WrongState
from gpud.instances.instance import InstanceState, LoadPhase


class Happening(enum.Enum):
    """What can happen to an instance."""

    BEGUN = "begun"
    VERIFIED = "verified"
    PROMISED = "promised"
    STARTED = "started"
    LOADED = "loaded"
    WARMED = "warmed"
    MOVED = "moved"  # its port was another's: to be started with one more
    STOP_ASKED = "stop_asked"
    DRAINED = "drained"
    BROKE = "broke"  # a phase failed, or the engine ended by itself
    GONE = "gone"  # the tree is gone and the promise ended, as asked
    GONE_BROKEN = "gone_broken"  # likewise, after a failure
    AILED = "ailed"  # it failed after it had served: to be started again
    RESET = "reset"  # an operator has one that was given up loaded anew


_S, _H = InstanceState, Happening

_FORWARD = {
    (_S.QUEUED, _H.BEGUN): _S.VERIFYING,
    (_S.VERIFYING, _H.VERIFIED): _S.RESERVING,
    (_S.RESERVING, _H.PROMISED): _S.STARTING,
    (_S.STARTING, _H.STARTED): _S.LOADING,
    (_S.LOADING, _H.LOADED): _S.WARMING,
    (_S.LOADING, _H.MOVED): _S.STARTING,
    (_S.WARMING, _H.MOVED): _S.STARTING,
    (_S.WARMING, _H.WARMED): _S.READY,
    (_S.READY, _H.STOP_ASKED): _S.DRAINING,
    (_S.DRAINING, _H.DRAINED): _S.STOPPING,
    (_S.STOPPING, _H.GONE): _S.STOPPED,
    (_S.STOPPING, _H.GONE_BROKEN): _S.FAILED,
    (_S.BACKOFF, _H.PROMISED): _S.STARTING,  # it has its promise still
    (_S.FAILED, _H.RESET): _S.QUEUED,
}
_RISING = (_S.QUEUED, _S.VERIFYING, _S.RESERVING, _S.STARTING, _S.LOADING, _S.WARMING)
# From where one that had served falls back; from BACKOFF when not even its start could begin.
_FALLING = (_S.READY, _S.STARTING, _S.LOADING, _S.WARMING, _S.BACKOFF)

TABLE: dict[tuple[InstanceState, Happening], InstanceState] = {
    **_FORWARD,
    **{(state, _H.STOP_ASKED): _S.STOPPING for state in (*_RISING, _S.BACKOFF)},
    **{(state, _H.BROKE): _S.STOPPING for state in (*_RISING, _S.READY, _S.DRAINING, _S.BACKOFF)},
    **{(state, _H.AILED): _S.BACKOFF for state in _FALLING},
}

STATE_OF_PHASE = {
    LoadPhase.DETECT: _S.VERIFYING,
    LoadPhase.VERIFY: _S.VERIFYING,
    LoadPhase.ALLOCATE: _S.RESERVING,
    LoadPhase.START: _S.STARTING,
    LoadPhase.LOAD: _S.LOADING,
    LoadPhase.WARMUP: _S.WARMING,
    LoadPhase.CHECK: _S.WARMING,
    LoadPhase.REGISTER: _S.WARMING,
    LoadPhase.READY: _S.READY,
}

# The phase that a recorded state was reached in; an adopted load goes on from LOAD.
PHASE_OF_STATE = {
    _S.QUEUED: LoadPhase.DETECT,
    _S.VERIFYING: LoadPhase.VERIFY,
    _S.RESERVING: LoadPhase.ALLOCATE,
    _S.STARTING: LoadPhase.LOAD,
    _S.LOADING: LoadPhase.LOAD,
    _S.WARMING: LoadPhase.LOAD,
    _S.READY: LoadPhase.READY,
    _S.BACKOFF: LoadPhase.READY,  # what it was before it failed
}


def step(name: str, state: InstanceState, happening: Happening) -> InstanceState:
    """The state that follows. Raises WrongState."""
    following = TABLE.get((state, happening))
    if following is None:
        raise WrongState(
            name=name,
            state=state.name,
            advice=f"{happening.value} cannot happen to it there (`gpuctl show {name}`)",
        )
    return following
