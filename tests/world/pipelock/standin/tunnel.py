"""Carry bytes between a client and the host it asked for."""

import asyncio
import os
import socket
import time
from dataclasses import dataclass

from . import hello, log
from .config import ForwardProxy
from .http1 import Stream
from .judge import Judge, Unreachable

limit = 1024
first_byte_seconds = 5.0
dial_seconds = 10.0


def alive(sock: socket.socket, seconds: int) -> None:
    """Let the kernel probe a silent peer, so that an idle tunnel is not forgotten on its way."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, seconds)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


@dataclass(frozen=True)
class Tunnel:
    """Say who asked for what: `target` as the log has it, `about` with the fields of each of its lines."""

    host: str
    port: str
    target: str
    about: dict[str, object]
    rules: ForwardProxy

    async def dial(self, judge: Judge) -> socket.socket:
        """Connect to a name's first address, resolved and judged anew. Raises Unreachable."""
        port = int(self.port or 0)
        if port > 65535:
            raise Unreachable(f"dial tcp: address {port}: invalid port")
        address = str((await judge.addresses(self.host))[0])
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        sock.setblocking(False)
        try:
            async with asyncio.timeout(dial_seconds):
                await asyncio.get_running_loop().sock_connect(sock, (address, port))
        except OSError as error:
            sock.close()
            text = os.strerror(error.errno).lower() if error.errno else "i/o timeout"
            raise Unreachable(f"dial tcp {address}:{port}: connect: {text}") from error
        alive(sock, 30)
        return sock

    async def run(self, client: Stream, server: socket.socket) -> None:
        """Check the client's first bytes, then carry everything until both sides have ended."""
        if self.rules.sni_verification and not await self.vetted(client):
            return
        log.event("info", "tunnel_open", "tunnel opened", target=self.target, **self.about)
        start, total = time.monotonic(), await self.relay(client, server)
        spent = (time.monotonic() - start) * 1000
        log.event(
            "info", "tunnel_close", "tunnel closed",
            target=self.target, **self.about, total_bytes=total, duration_ms=round(spent, 6),
        )  # fmt: skip

    async def vetted(self, client: Stream) -> bool:
        """Wait for the first bytes; refuse TLS that asks for another name than the tunnel's."""
        try:
            async with asyncio.timeout(first_byte_seconds):
                while self.partial(client.ahead) and await client.more():
                    pass
        except OSError:
            pass  # a timeout too: what has come is judged
        name, category = self.verdict(bytes(client.ahead))
        if category:
            log.event(
                "warn", "sni_mismatch", "SNI verification failed", connect_host=self.host, sni_host=name,
                **self.about, category=category, mitre_technique="T1090.004",
            )  # fmt: skip
        return not category

    @staticmethod
    def partial(data: bytes | bytearray) -> bool:
        """Say whether more must come before these bytes can be judged: there is none, or a part of a TLS record."""
        return not data or (data[0] == hello.handshake and len(data) < hello.record_size(data))

    def verdict(self, data: bytes) -> tuple[str, str]:
        """Return the asked name and what is wrong with it; nothing wrong is an empty text."""
        if not data:
            return "", "timeout"
        if data[0] != hello.handshake:
            return "", ""
        try:
            if len(data) < hello.record_size(data):
                raise hello.Malformed
            name = hello.name_in(data[: hello.record_size(data)])
        except hello.Malformed:
            return "", "malformed_tls"
        same = name is None or name.lower().removesuffix(".") == self.host.lower().removesuffix(".")
        return name or "", "" if same else "mismatch"

    async def relay(self, client: Stream, server: socket.socket) -> int:
        """Copy both ways, passing each side's end on; return the bytes carried."""
        counts = [0, 0]
        try:
            async with asyncio.timeout(self.rules.max_tunnel_seconds), asyncio.TaskGroup() as group:
                group.create_task(self.pump(client.sock, server, bytes(client.ahead), counts, 0))
                group.create_task(self.pump(server, client.sock, b"", counts, 1))
        except* OSError:
            pass
        return sum(counts)

    async def pump(self, source: socket.socket, sink: socket.socket, data: bytes, counts: list[int], side: int) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sink, data)  # what was read ahead is not counted
        while True:
            try:
                async with asyncio.timeout(self.rules.idle_timeout_seconds):
                    data = await loop.sock_recv(source, 1 << 16)
            except TimeoutError:
                data = b""
            if not data:
                return sink.shutdown(socket.SHUT_WR)
            counts[side] += len(data)
            await loop.sock_sendall(sink, data)
