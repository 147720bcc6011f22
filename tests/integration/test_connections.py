"""What a bottle may take of its host's table of connections, and that nobody who works has too little."""

import json
from typing import Any

from claude_bottle.process.container import AGENT
from tests.support.sessions import Bench, docker

# Each worker opens a tunnel and a TLS connection for each download, as a package manager without keep-alive.
DOWNLOADS = """
import http.client, json, ssl
from concurrent.futures import ThreadPoolExecutor

def worker(_):
    answers = []
    for _ in range(5):
        connection = http.client.HTTPSConnection("pipelock", 8888, timeout=120, context=context)
        connection.set_tunnel("api.anthropic.com", 443)
        connection.request("GET", "/api/hello")
        answers.append(connection.getresponse().status)
        connection.close()
    return answers

context = ssl.create_default_context()
with ThreadPoolExecutor(64) as pool:
    print(json.dumps(sum(pool.map(worker, range(64)), [])))
"""
# Until 20,000 were tried and 900 are open, of 1,000 less those of claude: it takes seconds, for the rate's sake.
CONNECTS = """
import json, pathlib, resource, socket, time

limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
begun, tried, held, refused = time.monotonic(), 0, [], 0
while tried < 20_000 or len(held) < 900 and time.monotonic() < begun + 60:
    tried += 1
    try:
        held.append(socket.create_connection(("pipelock", 8888), 60))
    except ConnectionRefusedError:
        refused += 1
entries = int(pathlib.Path("/proc/net/stat/nf_conntrack").read_text().splitlines()[1].split()[0], 16)
print(json.dumps({"held": len(held), "refused": refused, "entries": entries}))
"""


def inside(session: str, program: str) -> Any:
    """Run a Python program in a session's bottle; return what it prints as JSON."""
    return json.loads(
        docker(
            "exec", "--interactive", "--user", AGENT, f"claude-bottle-{session}", "python3", "-", stdin=program.encode()
        )
    )


def test_connections_of_a_bottle_are_limited_and_a_package_manager_does_not_notice(bench: Bench) -> None:
    with bench.running("--yes", "--print", f"HOLD: {bench.name}\nSAY: still here") as run:
        session = bench.held()
        assert inside(session, DOWNLOADS) == [200] * 320
        flood = inside(session, CONNECTS)
        bench.world.release(bench.name)
        assert run.end().out == b"still here\n"
    assert 900 <= flood["held"] <= 1000, flood
    assert flood["refused"] > 15_000
    # The downloads' own, which are over, stay for two minutes.
    assert flood["entries"] <= 1000 + 320 + 100
