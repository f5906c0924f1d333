"""The process that serves an application: uvicorn with limits of its own, ended by SIGTERM or Ctrl-C after the open requests."""

import asyncio
import contextlib
import signal
import weakref
from collections.abc import Callable

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

_HEAD_SECONDS = (
    10.0  # limit for the head of a request, from the connection on, or from the first byte of a later request
)
_READ_SECONDS = 30.0  # a client that reads nothing of an answer for so long is disconnected
_open: "weakref.WeakSet[_Protocol]" = weakref.WeakSet()


def unread() -> int:
    """Returns the bytes of answers that clients have not read, of all connections."""
    return sum(one.transport.get_write_buffer_size() for one in _open)


class _Protocol(H11Protocol):
    """HTTP with limits on how long a client may take for the head of a request, and to read an answer."""

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        _open.add(self)
        self._head: asyncio.TimerHandle | None = self.loop.call_later(_HEAD_SECONDS, transport.close)
        self._reading: asyncio.TimerHandle | None = None

    def data_received(self, data) -> None:
        super().data_received(data)
        is_waiting = self.cycle is None or self.cycle.response_complete
        if self._head is not None and not is_waiting:
            self._head.cancel()
            self._head = None
        elif self._head is None and is_waiting:  # a part of the next head
            self._head = self.loop.call_later(_HEAD_SECONDS, self.transport.close)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch(self.transport.get_write_buffer_size() + 1)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reading is not None:
            self._reading.cancel()

    def _watch(self, before: int) -> None:
        """Disconnects a client that has read nothing since `before` bytes were left; otherwise looks again later."""
        left = self.transport.get_write_buffer_size()
        if left >= before:
            self.transport.abort()
        else:
            self._reading = self.loop.call_later(_READ_SECONDS, self._watch, left)

    def connection_lost(self, exc) -> None:
        for timer in (self._head, self._reading):
            if timer is not None:
                timer.cancel()
        _open.discard(self)
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
