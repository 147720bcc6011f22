"""Take pipelock's command line: `run` and `healthcheck`."""

import argparse
import socket
import sys

default_address = "127.0.0.1:8888"


def endpoint(text: str) -> tuple[str, int]:
    """Split `host:port`; no host means every address."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def healthcheck(address: str) -> int:
    """Ask a running proxy for its health; 0 when it is well."""
    try:
        with socket.create_connection(endpoint(address), timeout=3) as sock:
            sock.sendall(f"GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
            status = sock.makefile("rb").readline().split()
    except OSError as error:
        print(f"health check failed: {error}", file=sys.stderr)
        return 1
    return 0 if status[1:2] == [b"200"] else 1


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pipelock", description="A test double of the pipelock proxy.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("-c", "--config")
    run.add_argument("-m", "--mode", choices=("strict", "balanced", "audit"))
    run.add_argument("-l", "--listen", default=default_address)
    health = commands.add_parser("healthcheck")
    health.add_argument("--addr", default=default_address)
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    options = arguments(argv)
    if options.command == "healthcheck":
        return healthcheck(options.addr)
    # asyncio imports ssl where it finds it. No TLS ends here, and a start without it is a third quicker and smaller.
    sys.modules["ssl"] = None  # type: ignore[assignment]
    from . import run  # not at the top: a healthcheck, of which a start has several, needs none of the proxy

    return run.run(options.config, options.mode, options.listen)
