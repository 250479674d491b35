"""NodeService."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gpud.access.identity import CALLER
from gpud.access.reloading import CertificateState
from gpud.config_changes import ConfigChange
from gpud.engines.engine import EngineProgram
from gpud.events import Journal
from gpud.instances.roster import Roster
from gpud.ledger.books import Cordon
from gpud.rpc import messages
from gpud.rpc.events import EventMethods
from gpud.rpc.instances import DEFAULT_GRACE_SECONDS, MAX_GRACE_SECONDS
from gpud.rpc.reservations import call_of
from gpud.rpc.view import View
from gpud.settings import Config, Policy
from gpud.v1 import node_pb2 as pb
from gpud.v1 import node_pb2_grpc


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What the node is: values that stay as long as the daemon runs, and calls for what moves."""

    hostname: str
    version: str
    boot_id: str
    start_wall: float
    config: Callable[[], Config]  # in force
    # (state without its prefix, why it is not READY)
    state: Callable[[], tuple[str, str]]
    # The engines found on this host.
    programs: Callable[[], Sequence[EngineProgram]]
    # How the certificate of server.listen stands; None without one.
    certificates: Callable[[], CertificateState | None]
    # By whom, and whether only to validate. Raises ConfigRefused.
    reload: Callable[[str, bool], Awaitable[Sequence[ConfigChange]]]


class Node(EventMethods, node_pb2_grpc.NodeServiceServicer):
    """The host as a whole."""

    def __init__(self, facts: NodeFacts, journal: Journal, view: View, roster: Roster) -> None:
        super().__init__(journal)
        self._facts = facts
        self._view = view
        self._roster = roster

    async def GetNode(self, request: pb.GetNodeRequest, context: Any) -> pb.GetNodeResponse:
        """Who it is and how it stands."""
        caller = CALLER.get()
        told = pb.Caller(
            name=caller.name, role=f"ROLE_{caller.role.name}", proof=caller.proof.value
        )
        return pb.GetNodeResponse(node=await self._node(), caller=told)

    async def DrainNode(self, request: pb.DrainNodeRequest, context: Any) -> pb.DrainNodeResponse:
        """No new grants; answered once durable, and once every stop asked for is ordered."""
        actor = messages.acting_for(request.owner)
        reason = messages.checked_text("reason", request.reason)
        grace = messages.checked_span("deadline", request, 0.0, MAX_GRACE_SECONDS)
        known = self._view.promises.durable.drain
        # Said again without a reason, the first one stands.
        told = reason or (known.reason if known is not None else "")
        cordon = Cordon(reason=told, actor=actor, wall=self._view.clock.now().wall)
        call = call_of("DrainNode", request.request_id, request.stop_instances, grace, reason)
        await self._view.promises.cordon("", cordon, actor, call)
        if request.stop_instances:
            self._roster.stop_all(actor, DEFAULT_GRACE_SECONDS if grace is None else grace)
        return pb.DrainNodeResponse(node=await self._node())

    async def ResumeNode(
        self, request: pb.ResumeNodeRequest, context: Any
    ) -> pb.ResumeNodeResponse:
        """Grants again, to those that wait first."""
        actor = messages.acting_for(request.owner)
        call = call_of("ResumeNode", request.request_id)
        await self._view.promises.cordon("", None, actor, call)
        return pb.ResumeNodeResponse(node=await self._node())

    async def ReloadConfig(
        self, request: pb.ReloadConfigRequest, context: Any
    ) -> pb.ReloadConfigResponse:
        """What differs from the configuration in force; taken over by now, unless validated."""
        actor = messages.acting_for(request.owner)
        messages.checked_text("request_id", request.request_id, 128)
        found = await self._facts.reload(actor, request.validate_only)
        told = [
            pb.ConfigChange(
                key=each.key,
                kind=f"CONFIG_CHANGE_KIND_{each.kind.name}",
                needs_restart=each.needs_restart,
            )
            for each in found
        ]
        return pb.ReloadConfigResponse(changes=told)

    async def _node(self) -> pb.Node:
        facts = self._facts
        config = facts.config()
        state, reason = facts.state()
        return pb.Node(
            hostname=facts.hostname,
            version=facts.version,
            boot_id=facts.boot_id,
            state=f"NODE_STATE_{state}",
            state_reason=reason,
            policy=_policy(config.policy),
            engines=[
                pb.EngineInfo(
                    engine=f"ENGINE_{program.kind.name}",
                    version=program.version,
                    path=program.path,
                )
                for program in facts.programs()
            ],
            start_time=messages.stamp(facts.start_wall),
            sampling_interval=messages.span(config.sampling.interval),
            tls=_tls(facts.certificates()),
            orphan_count=await self._roster.orphans.count(),
            warnings=self._view.warnings(),
        )


def _tls(state: CertificateState | None) -> pb.TlsStatus | None:
    if state is None:
        return None
    client_ca = state.client_ca_not_after_wall
    return pb.TlsStatus(
        certificate_expire_time=messages.stamp(state.not_after_wall),
        reload_count=state.reload_count,
        refused_count=state.refused_count,
        problem=state.last_error,
        client_ca_expire_time=None if client_ca is None else messages.stamp(client_ca),
    )


def _policy(policy: Policy) -> pb.Policy:
    return pb.Policy(
        strict_allocation=policy.strict_allocation,
        device_reserve_bytes=policy.device_reserve,
        reserve_system_memory_bytes=policy.reserve_system_memory,
        release_deadline=messages.span(policy.release_deadline),
        preemption=policy.preemption,
        exclusive_process_mode=policy.exclusive_process_mode,
        on_trespass=policy.on_trespass,
        on_overuse=policy.on_overuse,
        oom_prevention=policy.oom_prevention,
        swap_disabled=policy.swap_disabled,
        gpu_affinity=policy.gpu_affinity,
        numa_aware=policy.numa_aware,
        priority_queues=policy.priority_queues,
        max_queue=policy.max_queue,
    )
