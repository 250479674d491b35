"""Who comes in, and where: listeners, certificates, tokens, the denied and the audit, as one part.

Made from the configuration; the daemon opens, watches and closes it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from gpud.access.access import Access
from gpud.access.audit import Audit
from gpud.access.auditing.metrics import Counts, page
from gpud.access.doors import Door, DoorKind
from gpud.access.identity import Role
from gpud.access.mint import Mint, auth_path
from gpud.access.reloading import CertificateState, DenyList, ServerCertificates
from gpud.clock import Clock
from gpud.events import Event
from gpud.listening import known_names
from gpud.rpc.server import Place, PortPlace, SocketPlace
from gpud.settings import Config

log = structlog.get_logger()

# A file that changed is seen within so long; with the grace of a connection that bounds how long
# somebody who is denied goes on.
LOOK_SECONDS = 1.0


class Entrance:
    """Everything about who may call."""

    def __init__(
        self,
        config: Config,
        main: Path,
        directory: Path,
        clock: Clock,
        tell: Callable[[Event], None],
    ) -> None:
        """Raises ConfigInvalid where a certificate, a key or the list of the denied is no good."""
        self._config = config
        self._main = main
        self._clock = clock
        self._tell = tell
        self._mint = Mint(clock, socket.gethostname())
        self._audit = Audit(config.audit, directory, clock)
        self.access = Access(config, self._mint, self._audit, clock, tell)
        self.certificates = ServerCertificates(config.tls, clock) if config.tls.key else None
        self._deny_list = DenyList(config.access.denied, clock, known_names(config))
        self.access.deny(self._deny_list.denied)
        # Of its own: those of the loop may all hang on other disks.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="look")

    def places(self) -> list[Place]:
        """Every listener of the configuration."""
        server = self._config.server
        found: list[Place] = [
            SocketPlace(
                door=_socket_door(self._main, Role.ADMIN),
                path=self._main,
                key="server.socket",
                mode=int(server.socket_mode, 8),
                group=server.socket_group,
            )
        ]
        for name, each in self._config.sockets.items():
            path = Path(each.path)
            found.append(
                SocketPlace(
                    door=_socket_door(path, Role[name.upper()], users_only=each.users_only),
                    path=path,
                    key=f"sockets.{name}.path",
                    mode=int(each.mode, 8),
                    group=each.group,
                )
            )
        if server.listen:
            found.append(self._port())
        return found

    def certificate_state(self) -> CertificateState | None:
        """How the certificate of server.listen stands; None without one."""
        return self.certificates.state if self.certificates is not None else None

    def metrics(self) -> str:
        """What Prometheus is told of who calls; may be asked from any thread."""
        state = self.certificate_state()
        counts = Counts(
            open_streams=self.access.budgets.open_streams,
            refused=dict(self.access.refused),
            certificate_not_after_wall=state.not_after_wall if state else None,
            client_ca_not_after_wall=state.client_ca_not_after_wall if state else None,
            reloads=state.reload_count if state else 0,
            reload_failures=state.refused_count if state else 0,
        )
        return page(counts)

    async def open(self) -> None:
        """Mint tokens beside the main socket, and write the audit, from now on."""
        path = auth_path(self._main)
        if path is None:
            log.warning("auth.no_socket", reason="the name of server.socket is too long for it")
            return
        path.unlink(missing_ok=True)  # the main socket's owner is the only one to have one here
        await self._mint.start(path)

    async def watch(self) -> None:
        """Look at files that may change, and at calls that wait for their message."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_files())
            tasks.create_task(self._watch_calls())

    async def _watch_calls(self) -> None:
        """Apart from the files: a disk that hangs holds up none of it."""
        while True:
            await self._clock.about(LOOK_SECONDS)
            self.access.end_late()

    async def _watch_files(self) -> None:
        """Read certificates and the list of the denied again when they change."""
        loop = asyncio.get_running_loop()
        while True:
            await self._clock.about(LOOK_SECONDS)
            events: list[Event] = []
            if self.certificates is not None:
                events += await loop.run_in_executor(self._thread, self.certificates.look)
            if self._deny_list.has_file:
                events += await loop.run_in_executor(self._thread, self._deny_list.look)
            if self._deny_list.denied is not self.access.denied:
                count = self.access.deny(self._deny_list.denied)
                log.info("access.denied_changed", cut_streams=count)
            for event in events:
                self._tell(event)
            await self._audit.flush()

    async def close(self) -> None:
        """Mint no more; write what is left of the audit."""
        await self._mint.stop()
        await self._audit.close()

    def _port(self) -> PortPlace:
        server, tls = self._config.server, self._config.tls
        if self.certificates is not None:
            kind = DoorKind.CERTIFICATES if tls.client_ca else DoorKind.TOKENS
            return PortPlace(
                door=Door(kind=kind, label=server.listen),
                address=server.listen,
                credentials=self.certificates.credentials(),
                max_age_seconds=float(tls.max_connection_age),
            )
        role = None if server.listen_role == "none" else Role[server.listen_role.upper()]
        kind = DoorKind.LOOPBACK
        return PortPlace(
            door=Door(kind=kind, label=server.listen, role=role), address=server.listen
        )


def _socket_door(path: Path, role: Role, *, users_only: bool = False) -> Door:
    label = f"unix:{path.name}"
    return Door(kind=DoorKind.SOCKET, label=label, role=role, users_only=users_only)
