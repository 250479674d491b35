"""`gpud token create`: a bearer token for callers that have no certificate."""

from __future__ import annotations

import re
import secrets
import sys
from typing import TYPE_CHECKING

import click

from gpud.config import toml_key
from gpud.listening import NAME_PATTERN

if TYPE_CHECKING:
    from gpud.settings import RoleName

_TOKEN_BYTES = 32


@click.group(name="token")
def token_group() -> None:
    """Bearer tokens for callers without a certificate."""


@token_group.command()
@click.argument("name")
@click.option("--role", type=click.Choice(["viewer", "operator", "admin"]), required=True)
def create(name: str, role: RoleName) -> None:
    """Make a token that is known as NAME, and show it once.

    Standard output is the token, then what the server's configuration needs. gpud keeps only the
    token's SHA-256: one that is lost is made anew.
    """
    from gpud.access.tokens import CONFIGURED_PREFIX, digest

    if not re.fullmatch(NAME_PATTERN, name):
        click.echo(
            f"gpud: cannot name a token {name!r}: a name is made of lower-case letters, digits, "
            "'.', '_' and '-'",
            err=True,
        )
        sys.exit(2)
    token = CONFIGURED_PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)
    click.echo(
        "the token is shown this once; keep it in a file that only its user may read, and name "
        "that with `gpuctl context add --token-file`",
        err=True,
    )
    click.echo(token)
    click.echo(f'\n[tokens.{toml_key(name)}]\nsha256 = "{digest(token)}"\nrole = "{role}"')
