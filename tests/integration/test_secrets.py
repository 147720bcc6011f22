"""Hunt for planted secrets: credentials, a variable of the host, what docker's own configuration says of proxies."""

import json
import secrets
import time
from hashlib import sha256

import pytest

from claude_bottle.bottle.plan import PLACEHOLDER
from tests.support.hunt import Watch, in_bottle, on_disk, told_by_docker
from tests.support.sessions import Bench, docker
from tests.world import api


def test_planted_secrets_are_where_they_are_needed(bench: Bench) -> None:
    """A credential is at its host alone, a variable of the bottle at claude."""
    secret, key, remembered = (f"made-up-{secrets.token_hex(16)}" for _ in range(3))
    planted = (bench.token, key, secret)
    signed = {"host": api.EXTRA_HOST, "header": {"X-Planted": "${KEY}"}}
    bench.write({"env": {"RENAMED": "${SECRET}"}, "credentials": [signed]})
    question = f"RUN: printenv RENAMED | sha256sum; curl -s https://{api.EXTRA_HOST}/{bench.name}\nHOLD: {bench.name}"
    given = {"SECRET": secret, "KEY": key}
    dry = bench.start("--dry-run", "--print", question, **given)
    log = docker("inspect", "--format", "{{.LogPath}}", api.CONTAINER).rpartition("/containers/")[2].strip()
    since = time.time() - 1
    with (
        Watch((*planted, f"HOLD: {bench.name}")) as watch,
        bench.running("--yes", "-v", "--print", question, **given) as run,
    ):
        session = bench.held()
        inside = in_bottle(session, [word.encode() for word in (*planted, PLACEHOLDER)], remembered.encode())
        during = on_disk(bench.world, since, (*planted, session))
        told = told_by_docker(bench)
        staged = "".join(path.read_text() for path in bench.stage.rglob("*") if path.is_file())
        bench.world.release(bench.name)
        ended = run.end()
    after = on_disk(bench.world, since, planted)
    assert (ended.code, ended.out.split()[:1]) == (0, [sha256(f"{secret}\n".encode()).hexdigest().encode()]), ended
    assert {request.token for request in bench.world.requests(bench.token) if request.runs} == {bench.token}
    # Each of these looks where something is to be seen: first that it saw that.
    assert inside[remembered.encode()] == ["memory"]
    assert {"environ", "memory"} <= set(inside[PLACEHOLDER.encode()])
    assert "environ" in inside[secret.encode()]
    assert [inside[word.encode()] for word in (bench.token, key)] == [[], []]
    assert watch.seen == {f"HOLD: {bench.name}"}
    assert during[session]
    for found in (during, after):  # the API, and the other host, which is the same container, write down what arrives
        arrived = {f"root/containers/{log}"}
        assert [found[word] for word in planted] == [arrived, arrived, set()]
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
    # The lock's container, the one one-shot, is gone too soon to be looked at: a twin of it is.
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
    assert told.count('"HTTPS_PROXY=') == 3  # of bottle, sidecar and credential proxy
    assert "HTTPS_PROXY=http://pipelock:8888\n" in ended.out.decode()
    assert needle not in twins.read_text() + told + ended.out.decode() + ended.err
    # Where nothing is said against it, they are there: this client does read the configuration.
    plain = ("run", "--rm", "--network", "none", bench.world.base_image, "env")
    assert needle in bench.run(("docker", *plain), {}).out.decode()
