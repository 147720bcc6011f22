"""Hunt for planted secrets: the token, a variable of the host, and what docker's own configuration says of proxies."""

import json
import secrets
import time
from hashlib import sha256

import pytest

from claude_bottle.bottle.plan import PROXY_UID
from claude_bottle.process.container import AGENT
from tests.support.hunt import Watch, inside, on_disk, told_by_docker
from tests.support.sessions import Bench, docker
from tests.world import api


def test_planted_secrets_are_nowhere_but_in_the_proxys_memory(bench: Bench) -> None:
    """The token and another credential; a variable of the host is at claude, too, and nowhere else."""
    secret, other = (f"made-up-{secrets.token_hex(16)}" for _ in range(2))
    planted = (bench.token, other, secret)
    raw = [word.encode() for word in planted]
    signed = {"host": api.EXTRA_HOST, "header": {"X-Word": "a ${OTHER}"}}
    bench.write({"env": {"RENAMED": "${SECRET}"}, "credentials": [signed]})
    question = (
        f"RUN: printenv RENAMED | sha256sum\nRUN: curl -s https://{api.EXTRA_HOST}/{bench.name}\nHOLD: {bench.name}"
    )
    environ = {"SECRET": secret, "OTHER": other}
    dry = bench.start("--dry-run", "--print", question, **environ)
    log = docker("inspect", "--format", "{{.LogPath}}", api.CONTAINER).rpartition("/containers/")[2].strip()
    since = time.time() - 1
    with (
        Watch((*planted, f"HOLD: {bench.name}")) as watch,
        bench.running("--yes", "-v", "--print", question, **environ) as run,
    ):
        bench.world.wait(bench.token, lambda request: len(request.results) == 2)
        session = bench.sessions()[0]
        bottle, proxy = f"claude-bottle-{session}", f"claude-bottle-{session}-gate"
        in_bottle, in_proxy = inside(bottle, AGENT, raw), inside(proxy, f"{PROXY_UID}:{PROXY_UID}", raw)
        during = on_disk(bench.world, since, (*planted, session))
        told = told_by_docker(bench)
        staged = "".join(path.read_text() for path in bench.stage.rglob("*") if path.is_file())
        bench.world.release(bench.name)
        ended = run.end()
    after = on_disk(bench.world, since, planted)
    assert ended.code == 0, ended
    assert ended.out.split()[:1] == [sha256(f"{secret}\n".encode()).hexdigest().encode()]
    assert {request.token for request in bench.world.requests(bench.token) if request.runs} == {bench.token}
    [arrived] = [one for one in bench.world.requests("") if one.path == f"/{bench.name}"]
    assert arrived.header("x-word") == (f"a {other}",)
    # Each of these looks where something is to be seen: first that it saw that.
    assert watch.seen == {f"HOLD: {bench.name}"}
    assert during[session]
    assert {"environ", "memory"} <= set(in_bottle[secret.encode()])
    assert [in_bottle[word] for word in raw[:2]] == [[], []]
    assert [in_proxy[word] for word in raw] == [["memory"], ["memory"], []]
    for seen in (during, after):
        assert [seen[word] for word in planted] == [{f"root/containers/{log}"}, {f"root/containers/{log}"}, set()]
    for text, known in (
        (told, session),
        (staged, "api.anthropic.com"),
        (ended.err, session),
        (dry.out.decode(), "exec"),
    ):
        assert known in text
        assert [needle for needle in planted if needle in text] == []
    assert [needle for needle in planted if needle in ended.out.decode() + dry.err] == []


@pytest.mark.parametrize("client", ["docker", "/usr/bin/docker"])
def test_proxies_of_dockers_configuration_reach_no_container(bench: Bench, client: str) -> None:
    """With the client of this machine, and with Debian's, the oldest that is to work."""
    needle = f"made-up-{secrets.token_hex(8)}"
    names = ("httpProxy", "httpsProxy", "ftpProxy", "allProxy", "noProxy")
    config = {"proxies": {"default": dict.fromkeys(names, f"http://user:{needle}@198.51.100.200:1")}}
    (bench.folder / "config.json").write_text(json.dumps(config))
    host = docker("context", "inspect", "--format", "{{.Endpoints.docker.Host}}").strip()
    bench.environ |= {"DOCKER_CONFIG": str(bench.folder), "DOCKER_HOST": host}
    if client != "docker":
        bench.environ["PATH"] = bench.program("docker", f'exec {client} "$@"', "old")
    # The lock's container is gone too soon to be looked at: a twin of it is.
    twins = bench.folder / "twins"
    path = bench.wrap(
        f'"run "*-lock" "*) id=$(docker create "${{@:4}}") && docker inspect $id >> {twins}; docker rm $id > /dev/null'
        ";;"
    )
    with bench.running("--yes", "--print", f"RUN: env\nHOLD: {bench.name}", PATH=path) as run:
        bench.held()
        told = told_by_docker(bench)
        bench.world.release(bench.name)
        ended = run.end()
    assert ended.code == 0, ended
    assert twins.read_text().count('"HTTPS_PROXY="') == 1
    assert told.count('"HTTPS_PROXY=') == 3
    assert "HTTPS_PROXY=http://pipelock:8888\n" in ended.out.decode()
    assert needle not in twins.read_text() + told + ended.out.decode() + ended.err
    # Where nothing is said against it, they are there: this client does read the configuration.
    plain = ("run", "--rm", "--network", "none", bench.world.base_image, "env")
    assert needle in bench.run(("docker", *plain), {}).out.decode()
