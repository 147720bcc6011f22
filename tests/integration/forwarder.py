"""Forward connections to the engine: forwarder.py <engine's socket> unix:<path>|tcp; tells where it listens.

A test that kills it takes the engine away, one that stops it cuts the link silently.
"""

import asyncio
import contextlib
import sys

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(1 << 16):
            target.write(data)
            await target.drain()
        target.write_eof()


async def join(*client: *Streams) -> None:
    engine = await asyncio.open_unix_connection(sys.argv[1])
    await asyncio.gather(copy(client[0], engine[1]), copy(engine[0], client[1]))
    for writer in (client[1], engine[1]):
        writer.close()


async def main() -> None:
    kind, _, path = sys.argv[2].partition(":")
    if kind == "unix":
        server = await asyncio.start_unix_server(join, path)
        where = f"unix://{path}"
    else:
        server = await asyncio.start_server(join, "127.0.0.1", 0)
        where = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    print(where, flush=True)
    await server.serve_forever()


asyncio.run(main())
