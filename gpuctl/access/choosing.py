"""Which gpud a command speaks to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gpuctl.access.addresses import default_socket, grpc_target, usable
from gpuctl.access.context import Context
from gpuctl.failures import usage

if TYPE_CHECKING:
    from gpuctl.access.context_text import Contexts


def chosen(address: str, name: str) -> Context:
    """By --address, --context, GPUCTL_ADDRESS, GPUCTL_CONTEXT, the current one, or the default.

    In this order; the first two are handed in, empty where they were not said. Raises Failure.
    GPUCTL_TOKEN_FILE is for the one that has no token file of its own.
    """
    found = _said(address, name) or _said(
        os.environ.get("GPUCTL_ADDRESS", ""), os.environ.get("GPUCTL_CONTEXT", "")
    )
    if found is None:
        found = _current() or Context(address=usable(default_socket()))
    found = found._replace(address=grpc_target(found.address))
    token_file = os.environ.get("GPUCTL_TOKEN_FILE")
    if token_file and not found.token_file:
        return found._replace(token_file=os.path.abspath(token_file))  # noqa: PTH100 (an import)
    return found


def _said(address: str, name: str) -> Context | None:
    if address:
        return Context(address=address)
    if not name:
        return None
    from gpuctl.access.contexts import read_contexts

    return named(read_contexts(), name)


def _current() -> Context | None:
    from gpuctl.access.contexts import read_contexts

    contexts = read_contexts()
    if not contexts.current:
        return None
    if contexts.current not in contexts.by_name:
        raise usage(
            f"the current context {contexts.current!r} is not among those kept; "
            "choose another (`gpuctl context use`)"
        )
    return contexts.by_name[contexts.current]


def named(contexts: Contexts, name: str) -> Context:
    """The one of that name. Raises Failure that tells which there are."""
    found = contexts.by_name.get(name)
    if found is None:
        there = ", ".join(sorted(contexts.by_name)) or "none yet"
        raise usage(
            f"there is no context {name!r}; there are: {there} "
            "(`gpuctl context add NAME --address …`)"
        )
    return found
