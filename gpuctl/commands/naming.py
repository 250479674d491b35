"""Which instance a name means: the one rule of every command that takes a model's name too."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from grpc import StatusCode

from gpuctl.failures import EXIT_REFUSED_BASE, Failure
from gpuctl.glance.words import is_over
from gpuctl.messages import seconds_of
from gpuctl.options import qualified
from gpuctl.session import Session
from gpud.v1.instances_pb2 import GetInstanceRequest, Instance, ListInstancesRequest
from gpud.v1.models_pb2 import GetModelRequest

# How much sense an instance makes for a command; those of the highest are chosen among.
Claim = Callable[[Instance], int]


def instance_or_none(session: Session, name: str) -> str | None:
    """The full name of an instance; None for what can only be a model's name."""
    if name.startswith("models/"):
        return None
    full = qualified("instances", name)
    if name == full:
        return full
    try:
        session.client.call(session.client.instances.GetInstance, GetInstanceRequest(name=full))
    except Failure as failure:
        if failure.code not in {StatusCode.NOT_FOUND, StatusCode.INVALID_ARGUMENT}:
            raise
        return None
    return full


def instance_named(session: Session, name: str, claim: Claim = lambda _: 0) -> str:
    """The full name of an instance, or of the one that a model's name means.

    Raises Failure where the model has several that live, or none. What is no name of either
    comes back as an instance's: gpud refuses it best.
    """
    known = instance_or_none(session, name)
    if known is not None:
        return known
    client = session.client
    model = qualified("models", name)
    pages = client.pages(client.instances.ListInstances, ListInstancesRequest(model=model))
    found = meant([each for page in pages for each in page.instances], claim)
    if found is not None:
        return found.name
    bare = model.removeprefix("models/")
    if _is_catalogued(session, model):
        code = StatusCode.NOT_FOUND
        raise Failure(
            message=f"cannot find an instance of {model}: it is not loaded; "
            f"`gpuctl load {bare}` loads it",
            exit_code=EXIT_REFUSED_BASE + code.value[0],
            code=code,
        )
    return qualified("instances", bare)


def meant(found: Sequence[Instance], claim: Claim = lambda _: 0) -> Instance | None:
    """Of a model's instances the one that lives; if none does, the one begun last.

    Of those with the highest claim, where they are not all alike. Raises Failure where several
    live: it is for the caller to say which.
    """
    most = max(map(claim, found), default=0)
    likely = [each for each in found if claim(each) == most]
    alive = [each for each in likely if not is_over(each)]
    if len(alive) > 1:
        # As gpud refuses to unload by such a name.
        names = ", ".join(each.name for each in alive)
        code = StatusCode.INVALID_ARGUMENT
        raise Failure(
            message=f"cannot accept model: it has several instances: {names}; name one",
            exit_code=EXIT_REFUSED_BASE + code.value[0],
            code=code,
        )
    return max(alive or likely, key=lambda each: seconds_of(each.create_time), default=None)


def _is_catalogued(session: Session, model: str) -> bool:
    try:
        session.client.call(session.client.models.GetModel, GetModelRequest(name=model))
    except Failure as failure:
        if failure.code is not StatusCode.NOT_FOUND:
            raise
        return False
    return True
