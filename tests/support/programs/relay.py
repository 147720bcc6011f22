"""Forward TCP connections: relay.py <address>:<port>=<address>:<port> ...; prints "ready"."""

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


async def serve(listen: str, to: str) -> None:
    address, _, port = to.rpartition(":")

    async def join(*client: *Streams) -> None:
        with contextlib.suppress(OSError):
            there = await asyncio.open_connection(address, int(port))
            await asyncio.gather(copy(client[0], there[1]), copy(there[0], client[1]))
            there[1].close()
        client[1].close()

    own, _, number = listen.rpartition(":")
    await asyncio.start_server(join, own, int(number))


async def main() -> None:
    for pair in sys.argv[1:]:
        listen, _, to = pair.partition("=")
        await serve(listen, to)
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
