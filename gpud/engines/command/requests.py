"""Pure: what a server of any kind is asked first, and what its last words mean."""

from __future__ import annotations

from typing import Any, Final

from gpud.models.model import Model, ModelKind

_TEXT: Final = "Say hello."
# Causes before what follows from them.
_MEANINGS: Final = {
    "address already in use": "its port is taken",
    "out of memory": "it ran out of memory",
    "cannot allocate memory": "it ran out of memory",
    "error while loading shared libraries": "a shared library is missing",
    "cannot execute ": "the program cannot be executed",
    "permission denied": "it was not permitted what it tried",
    "no such file or directory": "a file that it wants is not there",
}


def first_request(model: Model, tokens: int) -> tuple[str, dict[str, Any]] | None:
    """Path and body in the form of OpenAI's API; None where no kind is said, or none asks so."""
    name = (model.command.served_name if model.command is not None else "") or model.id
    length = {"model": name, "max_tokens": tokens}
    if model.kind is ModelKind.CHAT:
        messages = [{"role": "user", "content": _TEXT}]
        return "/v1/chat/completions", {"messages": messages, **length}
    if model.kind is ModelKind.COMPLETION:
        return "/v1/completions", {"prompt": _TEXT, **length}
    if model.kind is ModelKind.EMBEDDING:
        return "/v1/embeddings", {"input": _TEXT, "model": name}
    return None


def explain_exit(lines: tuple[str, ...]) -> str:
    """What the last lines mean, in a few words; empty when they say nothing known."""
    spoken = [line.lower() for line in lines]
    for words, meaning in _MEANINGS.items():
        if any(words in line for line in spoken):
            return meaning
    return ""
