"""Pure: what a recurrent layer computes with, by its kind."""

from __future__ import annotations

from typing import Final

from gpud.models.architecture import Recurrence, RecurrenceKind
from gpud.models.llama.plan import Plan

FLOAT_BYTES: Final = 4


def recurrence_bytes(plan: Plan) -> int:
    """The largest moment in a recurrent layer; 0 where there is none."""
    shape = plan.architecture.recurrence
    if shape is None:
        return 0
    state = max(layer.state_width for layer in plan.architecture.layers)
    laws = {
        RecurrenceKind.SCAN: _scan,
        RecurrenceKind.DELTA: _delta,
        RecurrenceKind.WKV: _wkv,
    }
    return FLOAT_BYTES * laws[shape.kind](plan, shape, state)


def _scan(plan: Plan, shape: Recurrence, state: int) -> int:
    """Mamba: projection, convolution in and out, inner result; and the slots' states.

    The states of all slots but one are copied aside too: in the space of the convolution's input
    where they fit there, else behind all the rest.
    """
    aside = (plan.slots - 1) * state
    elements = plan.tokens * (
        shape.projection_width + 2 * shape.convolution_width + shape.inner_width
    )
    fits = aside <= plan.tokens * shape.convolution_width
    return elements + plan.slots * state + (0 if fits else aside)


def _delta(plan: Plan, shape: Recurrence, state: int) -> int:
    """A gated delta net: convolution in and out, inner result; each slot's state twice."""
    cells = state - shape.convolution_rows * shape.convolution_width
    elements = plan.tokens * (2 * shape.convolution_width + shape.inner_width)
    return elements + plan.slots * (state + cells)


def _wkv(plan: Plan, shape: Recurrence, state: int) -> int:
    """RWKV: the mixed rows of a layer, and the slots' states before and after it."""
    return plan.tokens * shape.projection_width + 2 * plan.slots * state
