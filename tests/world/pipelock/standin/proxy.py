"""Serve clients: accept, read, open tunnels; what is no CONNECT goes to `plain`."""

import asyncio
import contextlib
import itertools
import re
import socket
import time
from collections.abc import Iterator

from . import http1, log, plain, tunnel
from .config import Config, ForwardProxy
from .http1 import BadRequest, Request, Stream
from .judge import Judge, Refusal, Unreachable, hints

established = b"HTTP/1.1 200 Connection Established\r\n\r\n"


class Proxy:
    """One listening proxy; `judge.config` is what is in force, and a reload replaces the judge."""

    def __init__(self, config: Config) -> None:
        self.judge = Judge(config)
        self.tunnels = 0
        self.born = time.monotonic()
        self.numbers: Iterator[int] = itertools.count(1)
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, listener: socket.socket, *, metrics: bool = False) -> None:
        """Accept clients for ever."""
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        while True:
            try:
                client, peer = await loop.sock_accept(listener)
            except OSError:
                await asyncio.sleep(0.05)  # out of descriptors, or the client has gone already
                continue
            task = loop.create_task(self.client(client, str(peer[0]), metrics))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def client(self, sock: socket.socket, peer: str, metrics: bool) -> None:
        with sock:
            sock.setblocking(False)
            tunnel.alive(sock, 15)
            stream = Stream(sock)
            with contextlib.suppress(OSError):  # the client is gone
                try:
                    while await self.one(stream, peer, metrics):
                        pass
                except BadRequest as error:
                    await stream.send(http1.farewell(error))
                await stream.end()

    async def one(self, stream: Stream, peer: str, metrics: bool) -> bool:
        """Serve one request; False when the connection is over."""
        request = await stream.request()
        if request is None:
            return False
        if metrics:
            await stream.send(plain.statistics(self, request))
        elif request.method == "CONNECT":
            return await self.connect(stream, request, peer)
        else:
            await stream.send(plain.respond(self, request, peer))
        return await stream.drain(request)

    async def connect(self, stream: Stream, request: Request, peer: str) -> bool:
        """Open a tunnel, or refuse it and keep the connection."""
        # A target without a host falls back to the Host header, which is judged by the same rules.
        given = request.target.partition("/")[0] or request.header("host")
        host, port = plain.split_authority(given)
        wanted = tunnel.Tunnel(
            host, "443" if port is None else port, given.rpartition("@")[2] + (":443" if port is None else ""),
            self.about(request, peer), self.rules,
        )  # fmt: skip
        refused = await self.refused(request, wanted)
        if not refused:
            return await self.open(stream, request, wanted)
        await stream.send(refused)
        return await stream.drain(request)

    @property
    def rules(self) -> ForwardProxy:
        return self.judge.config.forward_proxy

    async def refused(self, request: Request, wanted: tunnel.Tunnel) -> bytes | None:
        """Judge a tunnel; return the answer that refuses it, if one does."""
        if not self.rules.enabled:
            return request.answer(405, "CONNECT not supported")
        host, judge = wanted.host, self.judge
        refusal = judge.by_name(host.strip("[]"), f"https://{host}/")
        if refusal := refusal or await judge.by_address(host) or judge.by_rate(host):
            self.blocked(request.method, {"target": wanted.target}, wanted.about, refusal)
            return self.refuse(request, refusal, "CONNECT blocked")
        return request.answer(503, "too many active tunnels") if self.tunnels >= tunnel.limit else None

    async def open(self, stream: Stream, request: Request, wanted: tunnel.Tunnel) -> bool:
        """Dial, say so, and carry; the connection is over afterwards unless nothing answered."""
        self.tunnels += 1
        try:
            with await wanted.dial(self.judge) as server:
                await stream.send(established)
                await wanted.run(stream, server)
            return False
        except Unreachable as error:
            log.event(
                "error", "error", "request error",
                method="CONNECT", target=wanted.target, **wanted.about, error=str(error),
            )  # fmt: skip
            await stream.send(request.answer(502, "tunnel dial failed"))
            return await stream.drain(request)
        finally:
            self.tunnels -= 1

    def about(self, request: Request, peer: str) -> dict[str, object]:
        """Number a request, and name who sent it."""
        config = self.judge.config
        agent = config.default_agent_identity or "anonymous"
        if claimed := re.sub("[^A-Za-z0-9._-]", "_", request.header("x-pipelock-agent"))[:64]:
            agent = agent if config.bind_default_agent_identity else claimed
        return {"client_ip": peer, "request_id": f"req-{next(self.numbers)}", "agent": agent}

    @staticmethod
    def blocked(method: str, place: dict[str, str], about: dict[str, object], refusal: Refusal) -> None:
        who = {key: about[key] for key in ("client_ip", "request_id")}
        log.event(
            "warn", "blocked", "request blocked", method=method, **place, **who, scanner=refusal.scanner,
            reason=refusal.reason, agent=about["agent"], mitre_technique=log.techniques[refusal.scanner],
        )  # fmt: skip

    def refuse(self, request: Request, refusal: Refusal, prefix: str) -> bytes:
        hint = hints.get(refusal.scanner) if self.judge.config.explain_blocks else None
        more = {"X_Pipelock_Hint": hint} if hint else {}
        return request.answer(refusal.status, f"{prefix}: {refusal.reason}", **more)
