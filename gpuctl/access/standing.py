"""Pure: as whom gpuctl came, for those who are refused for want of a right."""

from __future__ import annotations

from gpuctl.access.context import Context

# Reasons that are about who calls.
REASONS = {"IDENTITY_MISSING", "ROLE_MISSING", "NOT_OWNER", "ACCESS_WITHDRAWN"}


def standing(context: Context, says: str) -> str:
    """`gpuctl came as ada@rig, by unix:///run/gpud/gpud.sock`. `says`: who the token says."""
    if says:
        who = says
    elif context.cert:
        who = f"with the certificate in {context.cert}"
    else:
        who = "without a token or a certificate"
    of = f"the context {context.name}, " if context.name else ""
    return f"gpuctl came {who}, by {of}{context.address}"
