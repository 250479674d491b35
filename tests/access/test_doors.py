"""Who somebody is, by the door and what is shown there."""

from __future__ import annotations

from typing import Any

import pytest

from gpud.access.denied import Denied
from gpud.access.doors import Door, DoorKind, Registry, Shown, identify
from gpud.access.identity import Caller, Proof, Role
from gpud.access.refusals import AccessWithdrawn, IdentityMissing
from gpud.access.tokens import Configured, Minted, Tokens, check_minted, digest, mint

KEY = b"k" * 32
ANNA = mint(KEY, Minted(name="anna@host", uid=1001, expires_boottime=300.0, nonce="n"))
CI = "gpud_secret"
FLEET = "spiffe://fleet/coordinator"
REGISTRY = Registry(
    identities={FLEET: Role.OPERATOR, "watch.example": Role.VIEWER},
    tokens=Tokens({"ci": Configured(name="ci", sha256=digest(CI), role=Role.OPERATOR)}),
    check_minted=lambda token: check_minted(KEY, token, 0.0),
)
ADMIN = Door(kind=DoorKind.SOCKET, label="unix:gpud.sock", role=Role.ADMIN)
VIEWER = Door(kind=DoorKind.SOCKET, label="unix:gpud.viewer.sock", role=Role.VIEWER)
LOOPBACK = Door(kind=DoorKind.LOOPBACK, label="127.0.0.1:1", role=Role.VIEWER)
NOBODY = Door(kind=DoorKind.LOOPBACK, label="127.0.0.1:1")
CERTIFICATES = Door(kind=DoorKind.CERTIFICATES, label="0.0.0.0:1")
TOKENS = Door(kind=DoorKind.TOKENS, label="0.0.0.0:1")


def known(door: Door, denied: Denied | None = None, **shown: Any) -> Caller:
    return identify(door, Shown(origin="o", **shown), REGISTRY, denied or Denied())


@pytest.mark.parametrize(
    ("door", "shown", "name", "role", "proof"),
    [
        (ADMIN, {}, "admin", Role.ADMIN, Proof.SOCKET),
        (VIEWER, {}, "viewer", Role.VIEWER, Proof.SOCKET),
        # A minted token is a name; the door is the right.
        (ADMIN, {"token": ANNA}, "anna@host", Role.ADMIN, Proof.USER),
        (VIEWER, {"token": ANNA}, "anna@host", Role.VIEWER, Proof.USER),
        # A configured one is a right of its own.
        (ADMIN, {"token": CI}, "ci", Role.OPERATOR, Proof.TOKEN),
        (TOKENS, {"token": CI}, "ci", Role.OPERATOR, Proof.TOKEN),
        (CERTIFICATES, {"token": CI}, "ci", Role.OPERATOR, Proof.TOKEN),
        (LOOPBACK, {}, "anonymous", Role.VIEWER, Proof.NOTHING),
        (CERTIFICATES, {"names": (FLEET,)}, FLEET, Role.OPERATOR, Proof.CERTIFICATE),
        (CERTIFICATES, {"names": ("other", "watch.example")}, "watch.example", Role.VIEWER,
         Proof.CERTIFICATE),
    ],
)  # fmt: skip
def test_who_is_known(
    door: Door, shown: dict[str, Any], name: str, role: Role, proof: Proof
) -> None:
    caller = known(door, **shown)
    assert (caller.name, caller.role, caller.proof) == (name, role, proof)


@pytest.mark.parametrize(
    ("door", "shown", "problem"),
    [
        (NOBODY, {}, "lets nobody in"),
        (TOKENS, {}, "lets nobody in"),
        (LOOPBACK, {"token": CI}, "in the clear"),
        (LOOPBACK, {"token": ANNA}, "in the clear"),
        (CERTIFICATES, {}, "no role in"),
        (CERTIFICATES, {"names": ("spiffe://fleet/coordinator/x",)}, "no role in"),
        (CERTIFICATES, {"names": (FLEET.upper(),)}, "no role in"),
        # Replayed from elsewhere: it is this host's sockets' only.
        (CERTIFICATES, {"token": ANNA}, "on its sockets only"),
        (TOKENS, {"token": ANNA}, "on its sockets only"),
        (ADMIN, {"token": "gpud_wrong"}, "not one of this node's"),
        (ADMIN, {"token": ANNA[:-1]}, "not minted"),
    ],
)
def test_who_is_not(door: Door, shown: dict[str, Any], problem: str) -> None:
    with pytest.raises(IdentityMissing, match=problem):
        known(door, **shown)


@pytest.mark.parametrize(
    ("denied", "shown"),
    [
        (Denied(names=frozenset({FLEET})), {"names": (FLEET,)}),
        # Any of its names, not only the one that has a role.
        (Denied(names=frozenset({"other"})), {"names": (FLEET, "other")}),
        (Denied(serials=frozenset({"0a"})), {"names": (FLEET,), "serial": "0a"}),
        (Denied(fingerprints=frozenset({"ff"})), {"names": (FLEET,), "fingerprint": "ff"}),
        (Denied(names=frozenset({"ci"})), {"token": CI}),
    ],
)
def test_who_is_denied(denied: Denied, shown: dict[str, Any]) -> None:
    with pytest.raises(AccessWithdrawn):
        known(CERTIFICATES, denied, **shown)
    assert known(CERTIFICATES, names=("watch.example",)).role is Role.VIEWER


def test_an_admin_acts_for_others_and_nobody_else_does() -> None:
    admin, viewer = known(ADMIN), known(VIEWER, token=ANNA)
    assert (admin.acting_for("bert"), admin.acting_for("")) == ("bert", "admin")
    assert (viewer.acting_for("bert"), viewer.acting_for("")) == ("anna@host", "anna@host")
    assert admin.may_change("anybody")
    assert viewer.may_change("anna@host")
    assert not viewer.may_change("bert")
