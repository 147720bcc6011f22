"""A server in a bottle, seen on this machine through `port`: by sockets, and by Debian's Chromium."""

import base64
import contextlib
import re
import secrets
import select
import signal
import socket
import struct
import subprocess
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest

from claude_bottle.repository.clone import WORKDIR
from tests.support.sessions import CLI, GUARD, Bench, Running, docker, forwarded
from tests.world import browser

MIB = 1 << 20
MOST = 50
# On port 3000, by the first byte: echo, an endless flood, or the last words after the end of what comes.
SERVER = """
import socket, sys, threading

def serve(connection):
    with connection:
        kind = connection.recv(1)
        count = 0
        try:
            while kind == b"f":
                connection.sendall(bytes(1 << 16))
            while data := connection.recv(1 << 16):
                count += len(data)
                if kind == b"e":
                    connection.sendall(data)
            connection.sendall(b" %d" % count)
        except OSError:
            pass

server = socket.create_server((sys.argv[1], 3000), family=socket.AF_INET, backlog=128)
print("up", flush=True)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""
# A page whose script opens a WebSocket and shows what comes back from it. It is loaded once the server has heard so.
PAGE = """<!doctype html><title>page</title><style>body{background:#0a5}</style>
<h1 id="word">waiting</h1><img src="/shown"><script>
const socket = new WebSocket("ws://" + location.host + "/echo");
socket.onopen = () => socket.send("WORD");
socket.onmessage = (event) => {
  document.getElementById("word").textContent = "heard " + event.data;
  socket.send("shown");
};
</script>"""
WEB = """
import base64, hashlib, http.server, threading

shown = threading.Event()

class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        key = self.headers.get("Sec-WebSocket-Key")
        if self.path == "/shown":
            shown.wait()
            shown.clear()
        if not key:
            return super().do_GET()
        digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(digest).decode())
        self.end_headers()
        self.close_connection = True
        while head := self.rfile.read(2):
            size = head[1] & 127
            mask, data = self.rfile.read(4), self.rfile.read(size)
            if head[0] & 15 == 8:
                break
            data = bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))
            if data == b"shown":
                shown.set()
                continue
            self.wfile.write(bytes((0x81, size)) + data)
            self.wfile.flush()

server = http.server.ThreadingHTTPServer(("127.0.0.1", 3000), Handler)
print("up", flush=True)
server.serve_forever()
"""

# A development server that sends an event for a file that comes, and a page that then shows what is in it.
CHANGES = """<!doctype html><h1 id="word">before</h1><img src="/shown"><script>
new EventSource("/changes").onmessage = async () => {
  document.getElementById("word").textContent = await (await fetch("/word")).text();
  await fetch("/done");
};
</script>"""
DEVELOPMENT = """
import http.server, pathlib, threading, time

word, done = pathlib.Path("word"), threading.Event()

class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/changes":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            print("watched", flush=True)
            while not word.exists():
                time.sleep(0.05)
            self.wfile.write(b"data: changed\\n\\n")
            self.wfile.flush()
        elif self.path == "/done":
            done.set()
        if self.path in ("/changes", "/shown"):
            done.wait()
        if self.path != "/changes":
            super().do_GET()

server = http.server.ThreadingHTTPServer(("127.0.0.1", 3000), Handler)
print("up", flush=True)
server.serve_forever()
"""


@contextlib.contextmanager
def session(bench: Bench) -> Iterator[tuple[str, Running]]:
    """Run a session that stays; yield its id."""
    if not (bench.agents / "puppet").exists():
        bench.puppet("stay")
    with bench.running("--yes") as run:
        assert run.process.stdout
        assert run.process.stdout.read(9) == b"<staying>", run.end()
        yield bench.sessions()[0], run


@contextlib.contextmanager
def server(session: str, program: str, *words: str, folder: str = "/tmp") -> Iterator[IO[bytes]]:
    """Run a server in a session's bottle, as its agent; yield what it prints."""
    argv = ("docker", "exec", "--interactive", "--user", "1000:1000", "--workdir", folder)
    words = (f"claude-bottle-{session}", "python3", "-u", "-c", program, *words)
    with subprocess.Popen((*argv, *words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"up\n"
        try:
            yield process.stdout
        finally:
            process.kill()


def free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number: int = listener.getsockname()[1]
        return number


class Port:
    """A `./cli.py port` that runs."""

    def __init__(self, bench: Bench, session: str) -> None:
        self.number = free()
        self.run = Running((str(CLI), "port", session, f"3000:{self.number}"), bench.environ)
        assert self.run.process.stdout
        self.url = self.run.process.stdout.readline().decode().strip()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.number), GUARD)


@contextlib.contextmanager
def port(bench: Bench, session: str) -> Iterator[Port]:
    made = Port(bench, session)
    try:
        assert made.url == f"http://{session}.localhost:{made.number}", made.run.end()
        yield made
    finally:
        made.run.process.terminate()
        made.run.end()


def echoed(connection: socket.socket, data: bytes) -> bytes:
    """Send data and the end of it, and return all that comes back meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        back = pool.submit(lambda: b"".join(iter(lambda: connection.recv(MIB), b"")))
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return back.result(GUARD)


def test_connections_side_by_side(bench: Bench) -> None:
    with session(bench) as (name, run), port(bench, name) as made:
        with pytest.raises(ConnectionResetError), made.connect() as nobody:  # nothing listens yet
            nobody.recv(1)
        with server(name, SERVER, "127.0.0.1"):
            _many(made)
            _stalled(made)
            listening = Path("/proc/net/tcp").read_text().splitlines()[1:]
            at = [line.split()[1] for line in listening if f":{made.number:04X} " in line and " 0A " in line]
            assert at == [f"0100007F:{made.number:04X}"]  # of 127.0.0.1 alone
            taken = bench.run((str(CLI), "port", name, f"3000:{made.number}"), {})
            assert (taken.code, taken.err.count("\n")) == (71, 1)
            assert f"port {made.number} of this machine is taken; try another" in taken.err
        processes = docker("top", f"claude-bottle-{name}", "-eo", "pid,args")
        assert processes.count("main(int(sys.argv[1]))") == 1  # one exec for all of them
        run.process.terminate()
        run.end()
        last = made.run.end()
        assert last.code == 0
        assert last.err.splitlines()[-1] == f"claude-bottle: {name} has ended, and port {made.number} is closed"


def _many(made: Port) -> None:
    """A megabyte each way on each of fifty at once, and no fifty-first."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(made.connect()) for _ in range(MOST)]
        for each in connections:
            each.sendall(b"ex")
            assert each.recv(1) == b"x"  # it has been accepted
        with pytest.raises(ConnectionResetError), made.connect() as one_more:
            one_more.recv(1)
        data = [secrets.token_bytes(MIB) for _ in connections]
        with ThreadPoolExecutor(MOST) as pool:
            back = list(pool.map(echoed, connections, data))
        assert back == [each + b" %d" % (MIB + 1) for each in data]  # the half that is left open has its say


def _stalled(made: Port) -> None:
    """One that reads nothing of an endless flood holds up nobody."""
    with made.connect() as stalled:
        stalled.sendall(b"f")
        for _ in range(10):
            with made.connect() as other:
                assert echoed(other, b"lword") == b" 4"
        with stalled.makefile("rb") as rest:
            assert rest.read(MIB) == bytes(MIB)  # it goes on where it was


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_closes_the_port_and_leaves_the_session(bench: Bench, number: signal.Signals) -> None:
    with session(bench) as (name, run), port(bench, name) as made:
        made.run.process.send_signal(number)
        ended = made.run.end()
        assert ended.code == 128 + number
        assert ended.err.splitlines()[-1] == f"claude-bottle: port {made.number} is closed; {name} goes on"
        with port(bench, name):  # nothing of the first is in the way
            pass
        assert run.process.poll() is None


def test_a_relay_that_the_agent_ends_or_speaks_for_ends_the_port_alone(bench: Bench) -> None:
    find = "p=$(pgrep -f '^/usr/bin/python3 .*main.int.sys' | head -n 1)"
    kinds = (
        (f"{find}; kill -KILL $p", "the relay in the bottle has ended: exit status 137"),
        # As if the bottle opened a connection to this machine.
        (
            f"{find}; printf '\\2\\0\\0\\0\\1\\0\\0' >/proc/$p/fd/1",
            "the bottle sent what no relay sends, and the port is closed",
        ),
    )
    with session(bench) as (name, run):
        for script, message in kinds:
            with port(bench, name) as made:
                docker("exec", "--user", "1000:1000", f"claude-bottle-{name}", "bash", "-c", script)
                ended = made.run.end()
                assert (ended.code, ended.err) == (70, f"claude-bottle: {message}\n")
        assert run.process.poll() is None


def chromium(folder: Path, *words: str) -> bytes:
    """Run Debian's Chromium without a window, sandbox (this may be root) or network of its own; return its stdout."""
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")
    quiet = ("--disable-background-networking", "--disable-component-update", "--no-first-run", "--no-proxy-server")
    argv = (browser.PROGRAM, *flags, *quiet, f"--user-data-dir={folder}/profile", *words)
    return subprocess.run(argv, capture_output=True, check=True, timeout=GUARD).stdout


def colours(png: bytes) -> set[bytes]:
    """Return the colours of a PNG's rows, as Chromium writes it: 8 bits, RGB or RGBA, not interlaced."""
    width, _, depth, kind = struct.unpack(">IIBB", png[16:26])
    assert (depth, kind) in {(8, 2), (8, 6)}
    data, at = b"", 8
    while at < len(png):
        size, name = struct.unpack(">I4s", png[at : at + 8])
        data += png[at + 8 : at + 8 + size] if name == b"IDAT" else b""
        at += size + 12
    return _pixels(zlib.decompress(data), width, 3 if kind == 2 else 4)


def _pixels(raw: bytes, width: int, each: int) -> set[bytes]:
    seen, above = set[bytes](), bytearray(width * each)
    for start in range(0, len(raw), width * each + 1):
        how, row = raw[start], bytearray(raw[start + 1 : start + 1 + width * each])
        for place in range(len(row)):
            left, corner = (row[place - each], above[place - each]) if place >= each else (0, 0)
            up = above[place]
            nearest = min(
                (abs(up - corner), 0, left), (abs(left - corner), 1, up), (abs(left + up - 2 * corner), 2, corner)
            )
            row[place] = (row[place] + (0, left, up, (left + up) // 2, nearest[2])[how]) & 255
        seen |= {bytes(row[place : place + 3]) for place in range(0, len(row), each)}
        above = row
    return seen


def test_a_page_in_a_bottle_of_a_remote_engine(bench: Bench) -> None:
    """By another link than its session's, which is lost at the end."""
    bench.puppet("stay")
    with forwarded("127.0.0.1:0") as (engine, _), forwarded("127.0.0.1:0") as (other, link):
        bench.environ["DOCKER_HOST"] = engine
        with session(bench) as (name, _):
            bench.environ["DOCKER_HOST"] = other
            with server(name, WEB, folder=WORKDIR), port(bench, name) as made:
                page(name, bench.name)
                with made.connect() as connection:
                    connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    got = b"".join(iter(lambda: connection.recv(MIB), b""))
                assert got.endswith(PAGE.replace("WORD", bench.name).encode())
                link.kill()
                ended = made.run.end()
    assert (ended.code, ended.err.count("\n")) == (69, 1), ended
    assert ended.err.startswith("claude-bottle: docker cannot be used: ")


def page(session: str, word: str) -> None:
    """Write the page into a session's bottle."""
    write(session, "index.html", PAGE.replace("WORD", word))


def write(session: str, name: str, text: str) -> None:
    """Write a file into a session's bottle, whole at once."""
    moved = f"base64 -d <<<{base64.b64encode(text.encode()).decode()} >.new && mv .new {name}"
    agent = ("--user", "1000:1000", "--workdir", WORKDIR)
    docker("exec", *agent, f"claude-bottle-{session}", "bash", "-c", moved)


@pytest.mark.long  # the browser is installed for it, which a second engine need not do again
def test_a_browser_sees_the_page_and_its_websocket(bench: Bench) -> None:
    browser.ensure()
    word = f"word-{secrets.token_hex(8)}"
    with session(bench) as (name, _), server(name, WEB, folder=WORKDIR):
        page(name, word)
        with port(bench, name) as made:
            dom = chromium(bench.folder, "--dump-dom", made.url).decode()
            assert re.search(r"<h1[^>]*>(.*)</h1>", dom) is not None
            assert f"heard {word}</h1>" in dom
            picture = bench.folder / "page.png"
            chromium(bench.folder, f"--screenshot={picture}", "--window-size=320,200", made.url)
            seen = colours(picture.read_bytes())
            assert bytes.fromhex("00aa55") in seen  # the page's own
            assert len(seen) > 2  # and its letters
            assert ended_whole(made)


@pytest.mark.long
def test_a_browser_shows_what_changes_in_the_bottle(bench: Bench) -> None:
    browser.ensure()
    with session(bench) as (name, _), server(name, DEVELOPMENT, folder=WORKDIR) as said:
        write(name, "index.html", CHANGES)
        with port(bench, name) as made, ThreadPoolExecutor(1) as pool:
            dom = pool.submit(chromium, bench.folder, "--dump-dom", made.url)
            assert select.select([said], [], [], GUARD)[0]
            assert said.readline() == b"watched\n"
            write(name, "word", "after")
            assert b">after</h1>" in dom.result()


def ended_whole(made: Port) -> bool:
    """Return whether the port still serves, and serves what python3 -m http.server would."""
    with made.connect() as connection:
        connection.sendall(b"GET /none HTTP/1.0\r\n\r\n")
        return connection.recv(MIB).startswith(b"HTTP/1.1 404 ")
