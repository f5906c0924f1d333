"""The process's own part of the server: a head that never comes ends the connection."""

import asyncio

from embed.serving import server


def test_a_connection_without_a_request_is_closed(monkeypatch):
    monkeypatch.setattr(server, "_HEAD_SECONDS", 0.05)
    ports = []

    async def run():
        config = server.uvicorn.Config(_app, port=0, http=server._Protocol, log_level="critical", lifespan="off")
        one = server._Server(config, lambda host, port: ports.append(port))
        serving = asyncio.create_task(one.serve())
        while not ports:
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection("127.0.0.1", ports[0])
        writer.write(b"GET / HTTP/1.1\r\nHo")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", ports[0])
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await asyncio.wait_for(reader.readuntil(b"ok"), 5)).startswith(b"HTTP/1.1 200")
        await asyncio.sleep(0.1)  # a connection that was used stays
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await asyncio.wait_for(reader.readuntil(b"ok"), 5)).startswith(b"HTTP/1.1 200")
        writer.close()
        one.should_exit = True
        await serving

    asyncio.run(run())


async def _app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
