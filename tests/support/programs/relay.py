"""Forward connections: relay.py LISTEN=TO ..., each end unix:PATH or ADDRESS:PORT; port 0 takes any that is free.

Prints where it listens, in one line. A test that kills it takes away what is behind it, one that stops it cuts the link
silently.
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


async def connect(end: str) -> Streams:
    address, _, port = end.rpartition(":")
    return await (asyncio.open_unix_connection(port) if address == "unix" else asyncio.open_connection(address, port))


async def serve(listen: str, to: str) -> str:
    async def join(*client: *Streams) -> None:
        with contextlib.suppress(OSError):
            there = await connect(to)
            await asyncio.gather(copy(client[0], there[1]), copy(there[0], client[1]))
            there[1].close()
        client[1].close()

    address, _, port = listen.rpartition(":")
    if address == "unix":
        await asyncio.start_unix_server(join, port)
        return f"unix://{port}"
    server = await asyncio.start_server(join, address, int(port))
    return f"tcp://{address}:{server.sockets[0].getsockname()[1]}"


async def main() -> None:
    print(*[await serve(*pair.split("=")) for pair in sys.argv[1:]], flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
