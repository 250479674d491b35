"""Pure: the ways in, and who somebody is that came by one of them."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping

import msgspec

from gpud.access.denied import Denied
from gpud.access.identity import Caller, Proof, Role
from gpud.access.refusals import AccessWithdrawn, IdentityMissing
from gpud.access.tokens import MINTED_PREFIX, Minted, Tokens


class DoorKind(enum.Enum):
    """What a listener is."""

    SOCKET = "socket"  # a Unix socket: its file's mode is the right
    LOOPBACK = "loopback"  # TCP in the clear, of this host alone
    CERTIFICATES = "certificates"  # TLS with client certificates
    TOKENS = "tokens"  # TLS where each call has a token


class Door(msgspec.Struct, frozen=True, kw_only=True):
    """A listener. `role` is that of callers who bring no proof of their own; None: no role.

    `users_only`: at this socket they must bring a token that names them.
    """

    kind: DoorKind
    label: str  # as logs name it
    role: Role | None = None
    users_only: bool = False


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What a connection shows of its peer: the address, and what its certificate says."""

    origin: str
    token: str = ""
    names: tuple[str, ...] = ()  # URI SANs, then DNS SANs
    serial: str = ""
    fingerprint: str = ""


class Registry(msgspec.Struct, frozen=True, kw_only=True):
    """Who is known: certificates by name, tokens, and how a minted one is checked."""

    identities: Mapping[str, Role]
    tokens: Tokens
    check_minted: Callable[[str], Minted]


def identify(door: Door, shown: Shown, registry: Registry, denied: Denied) -> Caller:
    """Who calls. Raises IdentityMissing, AccessWithdrawn."""
    caller = _known(door, shown, registry)
    if is_denied(caller, shown, denied):
        raise AccessWithdrawn(caller=caller.name)
    return caller


def is_denied(caller: Caller, shown: Shown, denied: Denied) -> bool:
    """Whether it is refused by its name, or by anything of the certificate that it came with."""
    return denied.covers((caller.name, *shown.names), shown.serial, shown.fingerprint)


def still_known(caller: Caller, shown: Shown, registry: Registry) -> bool:
    """Whether it would be let in as what it was, or more, by what it came with.

    Of a socket or a minted token nothing has changed: neither is of the configuration's tables.
    """
    if caller.proof is Proof.CERTIFICATE:
        found = next((each for each in shown.names if each in registry.identities), "")
        return found == caller.name and registry.identities[found] >= caller.role
    if caller.proof is not Proof.TOKEN:
        return True
    try:
        token = registry.tokens.find(shown.token)
    except IdentityMissing:
        return False
    return token.name == caller.name and token.role >= caller.role


def _known(door: Door, shown: Shown, registry: Registry) -> Caller:
    if shown.token:
        return _by_token(door, shown, registry)
    if door.kind is DoorKind.CERTIFICATES:
        return _by_certificate(shown, registry)
    if door.role is None or door.users_only:
        raise IdentityMissing(problem=f"{door.label} lets nobody in without a token")
    if door.kind is DoorKind.SOCKET:
        name, proof = door.role.name.lower(), Proof.SOCKET
    else:
        name, proof = "anonymous", Proof.NOTHING
    return Caller(name=name, role=door.role, proof=proof, origin=shown.origin)


def _by_token(door: Door, shown: Shown, registry: Registry) -> Caller:
    if door.kind is DoorKind.LOOPBACK:
        raise IdentityMissing(
            problem="a token came in the clear and may have been read; it is taken over TLS or a "
            "Unix socket only"
        )
    if not shown.token.startswith(MINTED_PREFIX):
        found = registry.tokens.find(shown.token)
        return Caller(name=found.name, role=found.role, proof=Proof.TOKEN, origin=shown.origin)
    if door.kind is not DoorKind.SOCKET or door.role is None:
        raise IdentityMissing(problem="a token of a user of this host is good on its sockets only")
    minted = registry.check_minted(shown.token)
    return Caller(
        name=minted.name, role=door.role, proof=Proof.USER, origin=shown.origin, uid=minted.uid
    )


def _by_certificate(shown: Shown, registry: Registry) -> Caller:
    """The first of the certificate's names that the configuration knows."""
    for name in shown.names:
        role = registry.identities.get(name)
        if role is not None:
            return Caller(name=name, role=role, proof=Proof.CERTIFICATE, origin=shown.origin)
    raise IdentityMissing(problem="the certificate's names have no role in [identities]")
