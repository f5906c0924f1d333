"""The process's own part of the server: a head that never comes ends the connection."""

import asyncio

from embed.serving import server


def test_a_connection_without_a_request_is_closed(monkeypatch):
    monkeypatch.setattr(server, "_HEAD_SECONDS", 0.05)

    async def run(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHo")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await asyncio.wait_for(reader.readuntil(b"ok"), 5)).startswith(b"HTTP/1.1 200")
        await asyncio.sleep(0.1)  # a connection that was used stays
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await asyncio.wait_for(reader.readuntil(b"ok"), 5)).startswith(b"HTTP/1.1 200")
        writer.close()

    _with_server(_app, run)


def test_the_head_of_a_later_request_has_a_limit_too(monkeypatch):
    monkeypatch.setattr(server, "_HEAD_SECONDS", 0.05)

    async def run(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"ok"), 5)
        writer.write(b"GET / HTTP/1.1\r\nHo")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()

    _with_server(_app, run)


def test_an_answer_that_nobody_reads_is_given_up(monkeypatch):
    monkeypatch.setattr(server, "_READ_SECONDS", 0.1)
    size = 32 << 20

    async def large(scope, receive, send):
        headers = [(b"content-length", str(size).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x" * size})

    async def run(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        while server.unread() < 1 << 20:
            await asyncio.sleep(0.01)
        while server.unread():
            await asyncio.sleep(0.01)
        writer.close()
        # One that reads gets all of it, however long it takes.
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        got = 0
        while got < size:
            got += len(await reader.read(1 << 20))
            await asyncio.sleep(0.005)
        assert got == size
        writer.close()

    _with_server(large, run)


def _with_server(app, run) -> None:
    """Calls `run(port)` while the application is served."""
    ports = []

    async def serve():
        config = server.uvicorn.Config(app, port=0, http=server._Protocol, log_level="critical", lifespan="off")
        one = server._Server(config, lambda host, port: ports.append(port))
        serving = asyncio.create_task(one.serve())
        while not ports:
            await asyncio.sleep(0.01)
        await asyncio.wait_for(run(ports[0]), 30)
        one.should_exit = True
        await serving

    asyncio.run(serve())


async def _app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
