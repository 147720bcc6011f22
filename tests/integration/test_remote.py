"""An engine on another machine: what its host is asked for, and the connection that a session has to it."""

import json
import os
import signal
from dataclasses import replace

import pytest

from claude_bottle.bottle.plan import Run
from claude_bottle.host import addresses
from claude_bottle.host.machine import read_machine
from claude_bottle.manifest import agent as manifest
from claude_bottle.process.endpoint import Endpoint
from claude_bottle.process.liveness import this_process
from claude_bottle.session import planning, steps
from tests.support.far import Far
from tests.support.matrix import stays, watchdogs
from tests.support.sessions import CLI, Bench, docker

# This machine's own engine, which is said to be another's: what it must answer is known here.
FAR = {"CLAUDE_BOTTLE_REMOTE": "1"}
# The last argument is a shell script, which stays once it has answered.
STAYS = """*/proc/net/fib_trie*)
  last=${!#}; set -- "${@:1:$#-1}" "$last; exec sleep 600"; exec docker "$@" | tee MARK ;;"""


def test_the_host_of_the_engine_lists_its_addresses(bench: Bench) -> None:
    machine = replace(read_machine(this_process()), environ=bench.environ)
    agent = manifest.load_agent(bench.agents, bench.name, environ=bench.environ, home=machine.home)
    asked = planning.request(machine, agent, Run(terminal=False), endpoint=Endpoint("ssh://far"))
    [step] = [step for step in steps.table(planning.offline_plan(asked)).asking if step.name == steps.ADDRESSES]
    before = addresses.read()
    found = addresses.parse(docker(*step.argv[1:]))
    after = addresses.read()
    assert before.docker0
    assert found.docker0 == before.docker0
    # Bridges of other sessions come and go.
    assert {*before.host} & {*after.host} <= {*found.host} <= {*before.host} | {*after.host}


def test_no_check_is_left_out_only_because_the_engine_is_far(bench: Bench) -> None:
    ended = bench.run((str(CLI), "verify", bench.name, "--json"), {**FAR, "CLAUDE_BOTTLE_OAUTH_TOKEN": ""})
    assert ended.code == 0, ended
    checks = {check["name"]: check["verdict"] for check in json.loads(ended.out)[bench.name]["checks"]}
    assert (checks["host"], checks["docker0"]) == ("passed", "passed")
    assert "not applicable" not in checks.values()


def test_a_launcher_that_is_killed_while_it_asks_leaves_nothing(bench: Bench) -> None:
    mark = bench.folder / "asked"
    path = bench.wrap(STAYS.replace("MARK", str(mark)))
    with bench.running("--yes", **FAR, PATH=path) as run:
        bench.await_file(mark)
        while not [name for name in bench.objects() if name.endswith("-addresses")]:
            assert run.process.poll() is None
        os.kill(run.process.pid, signal.SIGKILL)
        run.end()
        bench.await_nothing()


def test_a_session_over_ssh_has_one_connection(bench: Bench) -> None:
    bench.puppet("stay")
    far = Far(bench)
    with bench.running("--yes", **far.env) as run:
        stays(run)
        assert len(far.connections()) == 1
        run.process.terminate()
        ended = run.end()
    assert (ended.code, "each docker command" in ended.err) == (128 + signal.SIGTERM, False), ended
    bench.await_nothing()
    far.until_closed()


@pytest.mark.parametrize("both", [False, True])
def test_the_connection_ends_with_launcher_and_watchdog(bench: Bench, both: bool) -> None:
    bench.puppet("stay")
    far = Far(bench)
    with bench.running("--yes", **far.env) as run:
        stays(run)
        for pid in (*(watchdogs(run.process.pid) if both else ()), run.process.pid):
            os.kill(pid, signal.SIGKILL)
        run.end()
        far.until_closed()  # also with a docker client that follows a log
    if both:
        cleaned = bench.run((str(CLI), "cleanup"), {})
        assert cleaned.code == 0, cleaned
    bench.await_nothing()


def test_where_no_socket_may_be_forwarded_docker_opens_its_own(bench: Bench) -> None:
    bench.puppet("hello")
    far = Far(bench, "AllowStreamLocalForwarding no\n")
    ended = bench.start("--yes", **far.env)
    assert ended.code == 0, ended
    assert ended.err.count("each docker command opens its own ssh connection, which takes longer") == 1, ended
    bench.await_nothing()


def test_a_connection_that_ends_is_opened_again_for_the_end(bench: Bench) -> None:
    bench.puppet("stay")
    far = Far(bench)
    with bench.running("--yes", **far.env) as run:
        stays(run)
        [pid] = far.connections()
        os.kill(pid, signal.SIGKILL)
        ended = run.end()
    assert ended.code in (69, 70), ended
    assert "left behind" not in ended.err, ended
    bench.await_nothing()
