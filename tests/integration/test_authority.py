"""The session's authority, if an agent had its key: no client that trusts it takes a certificate for another host."""

import base64
import json
import re
from pathlib import Path

from claude_bottle.egress import credential_proxy
from claude_bottle.egress.allowlist import Host
from claude_bottle.host.machine import Machine
from claude_bottle.process.liveness import this_process
from claude_bottle.session.planning import images
from tests.support.sessions import docker
from tests.world import World

PROGRAM = Path(__file__).parents[1] / "support" / "programs" / "trusting.py"
ENDED = ("api.anthropic.com", "extra.test")
OTHERS = ("evil.test", "anthropic.com", "api.anthropic.com.evil.test", "127.0.0.1")


def test_clients_take_its_certificates_for_the_ended_hosts_alone(world: World) -> None:
    """Beside one that is the same but for its constraints, which they take for every host."""
    own = credential_proxy.authority(credential_proxy.ended([Host("extra.test")], [])).decode()
    kinds = {"own": own, "open": re.sub("^nameConstraints.*", "", own, flags=re.MULTILINE)}
    assert kinds["own"] != kinds["open"]
    words = []
    for kind, text in kinds.items():
        for name in (*ENDED, *OTHERS):
            names = f"subjectAltName = {'IP' if name[0].isdigit() else 'DNS'}:{name}"
            leaf = re.sub("^subjectAltName.*", names, text, flags=re.MULTILINE)
            words.append(f"{kind}={name}={base64.b64encode(leaf.encode()).decode()}")
    base, *_ = images(Machine(world.environ(Path()), Path.home(), interactive=False, owner=this_process()))
    hosts = (word for name in (*ENDED, *OTHERS[:-1]) for word in ("--add-host", f"{name}:127.0.0.1"))
    options = ("--rm", "--network", "none", "--pull", "never", *hosts, "--entrypoint", "/usr/bin/python3")
    found = json.loads(docker("run", *options, base.tag, "-c", PROGRAM.read_text(), *words))
    every = ["curl", "git", "python"]
    assert found["open"] == dict.fromkeys((*ENDED, *OTHERS), every)
    assert found["own"] == {name: every if name in ENDED else [] for name in (*ENDED, *OTHERS)}
