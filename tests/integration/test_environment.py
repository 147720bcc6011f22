"""The environment of a bottle: what leads to the proxy and what does not, and what of the user's is passed on."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.sessions import CLI, PUPPET, Bench, Terminal, docker

OTHER = "10.99.0.7"  # a private address that is not the bottle's
# Answers on every IPv4 address of the bottle's; prints what a client gets from it by each of them, and from OTHER.
SERVE = """
import http.server, json, socket, subprocess, threading

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.wfile.write(b"HTTP/1.0 200 OK\\r\\n\\r\\nhere")

server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
URLLIB = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"
CLIENTS = {"curl": ["curl", "--silent", "--fail"], "python": ["python3", "-c", URLLIB]}
own = socket.gethostbyname(socket.gethostname())
answers = {}
for host in ("localhost", "127.0.0.1", "127.0.0.2", "0.0.0.0", "bottle", own, "10.99.0.7"):
    for name, client in CLIENTS.items():
        argv = [*client, f"http://{host}:{server.server_port}/"]
        out = subprocess.run(argv, capture_output=True, text=True).stdout.strip()
        answers[f"{name} {'own' if host == own else host}"] = out
ipv6 = open("/proc/net/if_inet6").read()
print(json.dumps({"answers": answers, "host": socket.gethostname(), "ipv6": ipv6, "port": server.server_port}))
"""


def test_only_the_bottle_itself_is_reached_without_the_proxy(bench: Bench) -> None:
    with bench.running("--yes", "--print", f"HOLD: {bench.name}\nSAY: done") as run:
        session = bench.held()
        done = bench.run((str(CLI), "shell", session), {}, f"exec python3 - <<'END'\n{SERVE}\nEND\n".encode())
        log = docker("logs", f"claude-bottle-{session}-sidecar").splitlines()
        bench.world.release(bench.name)
        assert run.end().code == 0
    seen = json.loads(done.out)
    # No program of this image's but curl reads ranges, and nothing of it has an address of IPv6.
    ranges = {"curl 127.0.0.2": "here", "python 127.0.0.2": ""}
    hosts = ("localhost", "127.0.0.1", "0.0.0.0", "bottle", "own")
    here = {f"{client} {host}": "here" for host in hosts for client in ("curl", "python")}
    refused = {f"curl {OTHER}": "", f"python {OTHER}": ""}
    assert (seen["answers"], seen["host"], seen["ipv6"]) == (here | ranges | refused, "bottle", "")
    asked = [
        next((host for host in ("127.0.0.2", OTHER) if host in line), line)
        for line in log
        if f":{seen['port']}" in line
    ]
    assert (set(asked), asked.count(OTHER)) == ({"127.0.0.2", OTHER}, 2)


LOOK = (
    "printenv TERM COLORTERM TERM_PROGRAM NO_COLOR FORCE_COLOR LANG",
    "echo ${TZ-none} $(date +%Z)",
    "tput colors; perl -e 'print 1' 2>&1",
)


@pytest.mark.parametrize(
    ("term", "zone", "expected"),
    [
        ("xterm-kitty", "Europe/Berlin", ("xterm-kitty", "Europe/Berlin CE")),
        ("alacritty", "CET-1CEST,M3.5.0,M10.5.0/3", ("alacritty", "CET-1CEST,M3.5.0,M10.5.0/3 CE")),
        ("xterm-of-tomorrow", "Mars/Phobos", ("xterm-256color", "none UTC")),
        ("../etc", ":/etc/localtime", ("xterm-256color", "none UTC")),
    ],
)
def test_an_image_is_given_no_terminal_zone_or_locale_that_it_does_not_know(
    bench: Bench, term: str, zone: str, expected: tuple[str, str]
) -> None:
    colors = {"COLORTERM": "truecolor", "TERM_PROGRAM": "WezTerm", "NO_COLOR": "1", "FORCE_COLOR": "0"}
    environ = {"TERM": term, "TZ": zone, "LANG": "de_DE.UTF-8", "LC_ALL": "de_DE.UTF-8", **colors}
    answer = bench.ask("\n".join(f"RUN: {line}" for line in LOOK), **environ).splitlines()
    assert answer[:6] == [expected[0], *colors.values(), "C.UTF-8"]
    assert answer[6].startswith(expected[1])
    assert answer[7:] == ["256", "1"]


def test_claude_and_a_shell_have_a_known_terminal_on_one(bench: Bench) -> None:
    bench.write(prompt=f"RUN: echo $TERM-$((6 * 7)) $TZ.\nHOLD: {bench.name}\n")
    with bench.terminal("--yes", TERM="xterm-of-tomorrow", TZ="Mars/Phobos"):
        request = bench.world.wait(bench.token, lambda request: bool(request.results))
        assert request.results[0].split() == ["xterm-256color-42", "."]
        session = bench.held()
        for given, known in (("foot-of-tomorrow", "xterm-256color"), ("xterm-kitty", "xterm-kitty")):
            environ = bench.environ | {"TERM": given, "TZ": "Asia/Tokyo"}
            shell = Terminal((str(CLI), "shell", session), environ, screen=True)
            shell.until("agent@bottle:")
            shell.type(b'echo "$TERM-$((6 * 7)) $(date +%Z)"\r')
            shell.until(f"{known}-42 JST")
            shell.type(b"exit 5\r")
            assert shell.code() == 5
        bench.world.release(bench.name)


def test_an_image_without_terminals_and_zones_has_the_usual_ones(bench: Bench) -> None:
    folder: Path = bench.agents / "image"
    shutil.copytree(PUPPET, folder)
    lines = "USER root\nRUN rm -r /usr/bin/infocmp /usr/share/terminfo /lib/terminfo /usr/share/zoneinfo\nUSER agent\n"
    with (folder / "Dockerfile").open("a") as dockerfile:
        dockerfile.write(lines)
    bench.write({"image": {"dockerfile": "../image/Dockerfile"}}, prompt="stay")
    with bench.running("--yes", TERM="xterm-kitty", TZ="Europe/Berlin") as run:
        assert run.process.stdout
        assert run.process.stdout.read(9) == b"<staying>"
        environ = {"TERM": "xterm-kitty", "TZ": "Europe/Berlin"}
        shell = (str(CLI), "shell", bench.sessions()[0])
        done = bench.run(shell, environ, b'echo "$TERM ${TZ-none} $(date +%Z)"; exit 3\n')
    assert (done.code, done.out) == (3, b"xterm-256color none UTC\n"), done
