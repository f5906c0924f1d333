"""The process that serves an application: uvicorn with limits of its own, ended by SIGTERM or Ctrl-C after the open requests."""

import asyncio
import contextlib
import signal
from collections.abc import Callable

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

_HEAD_SECONDS = 10.0


class _Protocol(H11Protocol):
    """HTTP with a limit on how long a client may take for a first request's head."""

    def connection_made(self, transport) -> None:
        super().connection_made(transport)

        def close() -> None:
            if self.cycle is None:
                transport.close()

        self._waiting_for_head = self.loop.call_later(_HEAD_SECONDS, close)

    def connection_lost(self, exc) -> None:
        self._waiting_for_head.cancel()
        super().connection_lost(exc)


class _Server(uvicorn.Server):
    """Leaves signals to `serve`; says where it listens."""

    def __init__(self, config: uvicorn.Config, listening: Callable[[str, int], None]):
        super().__init__(config)
        self._listening = listening

    @contextlib.contextmanager
    def capture_signals(self):
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        yield

    def _stop(self) -> None:
        self.force_exit, self.should_exit = self.should_exit, True  # the second time without waiting

    async def startup(self, sockets=None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._listening(host, port)


def serve(app, host: str, port: int, connections: int, listening: Callable[[str, int], None]) -> None:
    """Serves until a signal ends it. `listening(host, port)` is called once it accepts connections; more than `connections` at
    once are answered with 503. An address that cannot be had is an OSError."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=_Protocol,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_level="critical",
        access_log=False,
        limit_concurrency=connections,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=30,
        server_header=False,
        proxy_headers=False,
    )
    _Server(config, listening).run()
