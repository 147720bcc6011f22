"""The logs of a sidecar and a credential proxy, as an engine hands them on: merged, followed, to their end."""

import contextlib
import json
import subprocess
from collections.abc import Iterator

from claude_bottle.process.liveness import this_process
from tests.integration.test_commands import command
from tests.support.sessions import CLI, Bench, docker

HOST = "api.anthropic.com"


def tunnel(second: int, host: str) -> dict[str, object]:
    return {"event": "tunnel_open", "target": f"{host}:443", "time": f"2026-01-01T00:00:{second:02}Z"}


def request(second: int, verdict: str, path: str) -> dict[str, object]:
    known = {"event": "request", "host": HOST, "method": "GET", "status": 200}
    return known | {"time": f"2026-01-01T00:00:{second:02}Z", "verdict": verdict, "path": path}


@contextlib.contextmanager
def container(bench: Bench, role: str, *printed: dict[str, object]) -> Iterator[str]:
    """Make a container of a session that prints these lines, then more when it is told to, until it is removed."""
    name = f"claude-bottle-{bench.name}-{role}"
    labels = {"session": bench.name, "role": role, "owner": str(this_process()), "signs": HOST}
    flags = [word for key, value in labels.items() for word in ("--label", f"claude-bottle.{key}={value}")]
    lines = "\n".join(map(json.dumps, printed))
    script = "mkfifo /tmp/more; exec 3<>/tmp/more; printf '%s\\n' \"$0\"; cat <&3"
    settings = ("--name", name, "--init", "--network", "none", "--log-driver", "json-file", *flags)
    docker("create", *settings, bench.world.base_image, "bash", "-c", script, lines)
    try:
        yield name
    finally:
        docker("rm", "--force", name)


def test_both_logs_are_merged_and_followed_to_their_end(bench: Bench) -> None:
    first = [tunnel(1, HOST), tunnel(2, "a.test"), tunnel(4, "b.test")]
    second = [request(1, "allowed", "/one"), request(3, "blocked", "/two")]
    follow = (CLI, "logs", "--follow", bench.name)
    with container(bench, "sidecar", *first) as sidecar, container(bench, "gate", *second) as gate:
        docker("start", sidecar)
        child = subprocess.Popen(follow, env=bench.environ, stdout=subprocess.PIPE, text=True)
        assert child.stdout
        docker("start", gate)  # the command awaits it
        seen = sorted(child.stdout.readline().split()[0][-3:] for _ in range(4))
        assert seen == ["01Z", "02Z", "03Z", "04Z"]
        for name, more in ((gate, request(5, "failed", "/three")), (sidecar, tunnel(6, "c.test"))):
            write = ("exec", "--interactive", name, "bash", "-c", "cat > /tmp/more")
            docker(*write, stdin=f"{json.dumps(more)}\n".encode())
            assert child.stdout.readline().split()[0] == str(more["time"])
        logged = command(bench, "logs", bench.name).out.decode().splitlines()
        assert [line.split()[1:5] for line in logged] == [
            ["allowed", HOST, "GET", "/one"], ["allowed", "a.test"], ["blocked", HOST, "GET", "/two"],
            ["allowed", "b.test"], ["failed", HOST, "GET", "/three"], ["allowed", "c.test"],
        ]  # fmt: skip
        [listed] = [one for one in json.loads(command(bench, "list", "--json").out) if one["session"] == bench.name]
        assert (listed["allowed"], listed["blocked"]) == (4, 1)
    with child:
        assert (child.stdout.read(), child.wait()) == ("", 0)
