"""Start the proxy, keep it until a signal, and stop it."""

import asyncio
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import log, plain, proxy
from .config import Config, ConfigError, check, parse
from .main import endpoint
from .reload import Reloader, digest, effective


def load(path: str | None, mode: str | None) -> tuple[Config, bytes]:
    """Read the file, with the command line's mode over it. Raises ConfigError or OSError."""
    data = Path(path).read_bytes() if path else b""
    config = parse(data)
    if config.loosened:
        raise ConfigError(f"the stand-in does not do {', '.join(config.loosened)}")
    return check(effective(config, mode)) if path else effective(config, mode), data


def run(path: str | None, mode: str | None, listen: str) -> int:
    """Serve until SIGTERM or SIGINT; 1 when the file or the address cannot be used."""
    try:
        config, data = load(path, mode)
    except (ConfigError, OSError) as error:
        log.remark(f"loading config: {error}")
        return 1
    log.remark(f"Pipelock stand-in (a test double), mode {config.mode}, on {listen}")
    hash_ = digest(data) if path else "defaults"
    log.event(
        "info", "startup", "pipelock started",
        listen=listen, mode=config.mode, version=plain.version, config_hash=hash_,
    )  # fmt: skip
    # As with pipelock, the event comes before the port is bound: readiness is the healthcheck.
    try:
        listener = socket.create_server(endpoint(listen), backlog=512)
        metrics = socket.create_server(endpoint(config.metrics_listen)) if config.metrics_listen else None
    except OSError as error:
        log.remark(f"proxy error: listen tcp {listen}: bind: {error.strerror}")
        return 1
    asyncio.run(stay(config, listener, metrics, (Path(path), mode, data) if path else None))
    log.event("info", "shutdown", "pipelock stopping", reason="signal received")
    log.remark("Pipelock stopped.")
    # Not by way of the interpreter's end, which would wait for look-ups that are still under way.
    os._exit(0)


async def stay(
    config: Config, listener: socket.socket, metrics: socket.socket | None, file: tuple[Path, str | None, bytes] | None
) -> None:
    """Serve clients, the metrics page and reloads until a signal."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(32))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    here = proxy.Proxy(config)
    tasks = [loop.create_task(here.serve(listener))]
    if metrics:
        tasks.append(loop.create_task(here.serve(metrics, metrics=True)))
    if file:
        reloader = Reloader(here, *file)
        loop.add_signal_handler(signal.SIGHUP, reloader.reload)
        tasks.append(loop.create_task(reloader.watch()))
    await stop.wait()
