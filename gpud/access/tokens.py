"""Pure: bearer tokens, those of the configuration and those minted for a user of this host.

A minted token is a name that only this process can have signed: it gives no right of its own, is
good for five minutes, and ends with the process whose key signed it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping

import msgspec

from gpud.access.identity import Role
from gpud.access.refusals import IdentityMissing

MINTED_SECONDS = 300.0
MAX_RECENT = 1024
MINTED_PREFIX = "gpudu1."
CONFIGURED_PREFIX = "gpud_"
# A name, a number, a moment and a nonce; what is longer is not read.
MAX_TOKEN_CHARACTERS = 1024


class Minted(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """For whom a token was minted; `expires_boottime` in seconds of the clock nobody sets."""

    name: str
    uid: int
    expires_boottime: float
    nonce: str


class Configured(msgspec.Struct, frozen=True, kw_only=True):
    """A token of the configuration, known by the SHA-256 of its characters, in hex."""

    name: str
    sha256: str
    role: Role


def mint(key: bytes, minted: Minted) -> str:
    """The token that says so."""
    payload = _encoded(msgspec.json.encode(minted))
    return f"{MINTED_PREFIX}{payload}.{_signature(key, payload)}"


def check_minted(key: bytes, token: str, now_boottime: float) -> Minted:
    """For whom it was minted. Raises IdentityMissing for one that is forged, old or another's."""
    payload, _, signature = token.removeprefix(MINTED_PREFIX).partition(".")
    signed = _signature(key, payload).encode()
    if not hmac.compare_digest(signed, signature.encode("utf-8", "surrogatepass")):
        raise IdentityMissing(problem="the token was not minted by this run of gpud")
    return still_good(msgspec.json.decode(_decoded(payload), type=Minted), now_boottime)


def still_good(minted: Minted, now_boottime: float) -> Minted:
    """A token whose signature was checked before. Raises IdentityMissing for one that is old."""
    if now_boottime >= minted.expires_boottime:
        raise IdentityMissing(problem="the token is older than 5 minutes")
    return minted


class Recent:
    """Minted tokens that were checked lately, for a client shows the same one at each call."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._checked: dict[str, Minted] = {}

    def check(self, token: str, now_boottime: float) -> Minted:
        """For whom it was minted. Raises IdentityMissing."""
        known = self._checked.get(token)
        if known is not None:
            return still_good(known, now_boottime)
        minted = check_minted(self._key, token, now_boottime)
        if len(self._checked) >= MAX_RECENT:
            del self._checked[next(iter(self._checked))]  # the one that was shown first
        self._checked[token] = minted
        return minted


class Tokens:
    """Those of the configuration."""

    def __init__(self, configured: Mapping[str, Configured]) -> None:
        self._by_digest = {each.sha256: each for each in configured.values()}

    def find(self, token: str) -> Configured:
        """Whose it is. Raises IdentityMissing.

        Looked up by its hash: how long that takes tells nothing of the tokens there are.
        """
        found = self._by_digest.get(digest(token))
        if found is None:
            raise IdentityMissing(problem="the token is not one of this node's")
        return found


def digest(token: str) -> str:
    """What is kept of a token: its SHA-256 in hex. With 256 random bits it needs no salt."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def bearer(header: str) -> str:
    """The token of an `authorization` header. Raises IdentityMissing."""
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token or len(token) > MAX_TOKEN_CHARACTERS:
        raise IdentityMissing(problem="`authorization` is not `Bearer TOKEN`")
    return token


def _signature(key: bytes, payload: str) -> str:
    return _encoded(hmac.digest(key, payload.encode("utf-8", "surrogatepass"), "sha256"))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
