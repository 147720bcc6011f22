"""An open proxy, in the sidecar's place where nothing is protected: it goes wherever it is told, and notes requests.

It answers what a careless pipelock would: CONNECT, absolute http:// URLs, /fetch, /metrics and /stats, any number of
requests on one connection, their bodies ignored.
"""

import contextlib
import re
import socket
import ssl
import threading
from urllib.parse import parse_qs, urlsplit

METRICS = b"pipelock_active_tunnels 0"


def serve() -> None:
    """Listen on every address, on the port of a proxy and on that of its metrics."""
    listeners = [socket.create_server(("", port), backlog=256) for port in (9091, 8888)]
    print("ready", flush=True)
    threading.Thread(target=_accept, args=listeners[:1], daemon=True).start()
    _accept(listeners[1])


def _accept(listener: socket.socket) -> None:
    while True:
        client, _ = listener.accept()
        threading.Thread(target=_converse, args=(client,), daemon=True).start()


def _converse(client: socket.socket) -> None:
    data = b""
    with client, contextlib.suppress(OSError, ValueError):
        client.settimeout(10)
        while chunk := client.recv(65536):
            data += chunk
            while b"\r\n\r\n" in data:
                head, _, data = data.partition(b"\r\n\r\n")
                if _serve(client, head.decode("latin-1"), data):
                    return


def _serve(client: socket.socket, head: str, ahead: bytes) -> bool:
    """Serve one request; true when the connection has become a tunnel and ended."""
    print("request", repr(head[:2000]), flush=True)
    request = re.search(r"([A-Z]+) (\S+) HTTP/1", head)
    if not request:
        raise ValueError(head)
    method, target = request[1], request[2]
    if method == "CONNECT":
        host = re.search(r"^Host: *(\S+)", head, re.MULTILINE | re.IGNORECASE)
        place = target.partition("/")[0] or (host[1] if host else "")
        with dial(place, 443) as server:
            client.sendall(b"HTTP/1.1 200 Connection Established\r\n\r\n")
            server.sendall(ahead)
            _relay(client, server)
        return True
    if target.startswith(("/metrics", "/stats")):
        _answer(client, METRICS)
    elif target.startswith("/fetch"):
        _answer(client, _get(parse_qs(urlsplit(target).query)["url"][0], ""))
    elif target.startswith("/"):
        _answer(client, b"")
    else:
        host = re.search(r"^Host: *(\S+)", head, re.MULTILINE | re.IGNORECASE)
        _answer(client, _get(target, host[1] if host else ""))
    return False


def dial(place: str, port: int) -> socket.socket:
    """Connect, having resolved the name twice, as one does who checks first and dials afterwards."""
    host, _, given = place.rpartition("@")[2].rpartition(":") if re.search(r":\d+$", place) else (place, "", "")
    host = host.rpartition("@")[2].strip("[]").removesuffix(".")
    socket.getaddrinfo(host, None)
    return socket.create_connection((host, int(given or port)), 5)


def _get(url: str, host: str) -> bytes:
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    with dial(parts.netloc, 443 if tls else 80) as plain:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        server = context.wrap_socket(plain, server_hostname=parts.hostname) if tls else plain
        target = f"{parts.path or '/'}?{parts.query}"
        server.sendall(f"GET {target} HTTP/1.1\r\nHost: {host or parts.netloc}\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: server.recv(65536), b""))


def _answer(client: socket.socket, body: bytes) -> None:
    client.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


def _relay(client: socket.socket, server: socket.socket) -> None:
    back = threading.Thread(target=_copy, args=(server, client), daemon=True)
    back.start()
    _copy(client, server)
    back.join(10)


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


serve()
