"""Whole sessions with a real launcher process and a fake docker: commands run, messages printed, undos."""

import itertools
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time

import pexpect
import pytest

from tests.support.repos import Repo
from tests.support.scene import NAME, PATCHED, ROOT, SECRET, SESSION, STEPS, TRUSTING, UNDO, USUAL, Argv, Patches, Scene

START = ("start", "demo", "--yes")
CLASH = "Error response from daemon: Pool overlaps with other one on this address space\n"
EGRESS = "network create --driver bridge --subnet"


def test_a_session_exits_with_claudes_exit_code_and_leaves_nothing_behind(scene: Scene) -> None:
    scene.rule(STEPS["claude"], stdout="the answer\n", code=7)
    code, out, err = scene.run("start", "demo", "--yes", "--print", "the question")
    assert (code, out) == (7, "the answer\n")
    assert f"claude-bottle: session {SESSION}\n" in err
    assert scene.undone == USUAL
    last = scene.log[-2]
    assert last.argv == UNDO["network"]
    assert len(last.more["tmp"]) == 1  # the stage dir is the last to go


def test_no_client_of_dockers_has_the_token_in_its_words_or_its_environment(scene: Scene) -> None:
    scene.run(*START)
    assert [event for event in scene.log if SECRET in json.dumps([event.argv, event.more])] == []


def test_the_stage_dir_is_private_and_holds_no_secret(scene: Scene) -> None:
    scene.rule(STEPS["claude"], fifo="claude")
    child = scene.launch(*START)
    with scene.held("claude"):
        (stage,) = scene.tmp.iterdir()
        files = {path.name: path for path in stage.iterdir()}
        assert stage.name.startswith(f"{NAME}-")
        assert set(files) == {"owner", "pipelock.yaml"}
        assert stat.S_IMODE(stage.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in files.values()} == {0o600}
        assert '"api.anthropic.com"' in files["pipelock.yaml"].read_text()
        assert not [path for path in files.values() if SECRET in path.read_text()]
    assert scene.end(child)[0] == 0


def test_a_dry_run_prints_the_commands_of_a_session_and_calls_no_docker(scene: Scene) -> None:
    code, out, _ = scene.run("start", "demo", "--dry-run", CLAUDE_BOTTLE_OAUTH_TOKEN="")
    assert code == 0
    assert scene.log == []
    shown, undos, texts = _shown(out)
    assert scene.run(*START)[0] == 0
    run = [event.argv for event in scene.log if event.kind == "start"]
    for what in ("info", "ps"):  # whether the engine logs secrets, and what it has of memory and of bottles
        [asked] = [argv for argv in run if argv[1] == what]
        run.remove(asked)
    [asked] = [argv for argv in run if argv[1] == "image"]  # one query for all images, in the dry run one for each
    assert [(*asked[:-2], image) for image in asked[-2:]] == [argv for argv in shown if argv[1] == "image"]
    shown, run = ([argv for argv in argvs if argv[1] != "image"] for argvs in (shown, run))
    made = [argv for argv in shown if argv[1] in ("build", "pull") or EGRESS in " ".join(argv)]  # exists already
    assert _owned(run) == _owned([argv for argv in shown if argv not in made] + USUAL)
    assert undos == [UNDO["selftest"], UNDO["gate"], UNDO["lock"], UNDO["bottle"], *scene.undone]
    given = [event.more["stdin"] for event in scene.log if event.ends("nft --file -")]
    rules = [text[: text.rindex("}\n") + 2] for text in given]  # before the gate's tar
    for ran, written in zip(sorted(rules), sorted(texts), strict=True):
        more, less = (
            set(one.splitlines()) - set(other.splitlines()) for one, other in ((ran, written), (written, ran))
        )
        assert all("reject" in line for line in more)  # for addresses only the engine knows
        assert all(line.strip().startswith(("#", "ip daddr { ")) for line in less)  # addresses may have changed


def _owned(argvs: list[Argv]) -> list[Argv]:
    """Sort commands, without what differs in the dry run: the owner's process, its proof, the size of the rules.

    The rules list this machine's addresses, and tests in parallel create and remove networks.
    """
    varying = r"(owner=\S+?:\S+?):\d+:\d+|(proof=)\w+|(--bytes )\d+(?= \| \S*nft)|^\d+$"
    return sorted(tuple(re.sub(varying, r"\1\2\3", word) for word in argv) for argv in argvs)


def _words(command: str) -> Argv:
    words = subprocess.run(("/bin/bash", "-c", f"printf '%s\\0' {command}"), check=True, capture_output=True, text=True)
    return tuple(words.stdout.split("\0")[:-1])


def _shown(text: str) -> tuple[list[Argv], list[Argv], list[str]]:
    """Parse a dry run as a shell would: its commands, its undos, and nft's input."""
    commands: tuple[list[Argv], list[Argv]] = ([], [])
    texts: list[str] = []
    undo = inside = False
    for line in text.splitlines():
        if inside:
            inside = line != "END"
            texts[-1] += f"{line}\n" if inside else ""
        elif line.startswith("#"):
            undo = line.startswith("# undo ")
        else:
            inside = line.endswith("<<'END'")
            texts += [""] if inside else []
            command = line.removesuffix(" <<'END'").removesuffix(" > /dev/null 2>&1 ||")
            commands[undo].append(_words(command))
    return *commands, texts


@pytest.mark.parametrize("step", STEPS)
def test_a_signal_at_any_step_runs_the_undos_armed_by_then(scene: Scene, step: str) -> None:
    scene.rule(STEPS[step], fifo="step")
    child = scene.launch(*START)
    with scene.held("step"):
        child.send_signal(signal.SIGTERM)
    code, _, _ = scene.end(child)
    assert code == 128 + signal.SIGTERM
    _hold_teardown(scene)


@pytest.mark.parametrize("step", [step for step in STEPS if step not in ("claude", "processes")])
def test_a_killed_client_fails_its_step_which_is_undone_too(scene: Scene, step: str) -> None:
    scene.rule(STEPS[step], code=-9)
    code, _, err = scene.run(*START, patches=TRUSTING)
    assert code == (66 if step in ("lock", "gate", "selftest", "inspect") else 70)
    assert f"claude-bottle: {step}: " in err
    _hold_teardown(scene)


def test_an_engine_that_cannot_list_processes_is_none_that_cannot_be_used(scene: Scene) -> None:
    scene.rule(STEPS["processes"], code=1, stderr="Error response from daemon: ps: bad -o argument 'ruid'\n")
    code, _, err = scene.run(*START)
    assert (code, "ruid" in err) == (0, False), err


def _hold_teardown(scene: Scene) -> None:
    """Assert that each started step with an undo is undone, in reverse order, and that nothing else runs then.

    The sidecar goes beside those that are undone after the gate, and is gone before the network.
    """
    log = scene.log
    started = {step for step in UNDO if any(event.starts(STEPS[step]) for event in log)}
    gone = {
        step for step in ("lock", "gate", "bottle", "selftest") if any(event.succeeds(STEPS[step]) for event in log)
    }
    undone = [
        step for step in ("selftest", "gate", "lock", "bottle", "sidecar", "network") if UNDO[step] in scene.undone
    ]
    ordered = [UNDO[step] for step in undone]
    assert sorted(ordered) == sorted(scene.undone)
    without = [[argv for argv in argvs if argv != UNDO["sidecar"]] for argvs in (ordered, scene.undone)]
    assert without[0] == without[1]
    if {"sidecar", "network"} <= set(undone):
        assert scene.undone.index(UNDO["sidecar"]) < scene.undone.index(UNDO["network"])
    early = {"selftest"}  # starts long before it is given its question, and may be ended before it writes to the log
    assert started - gone <= set(undone) <= started | early
    first = next(place for place, event in enumerate(log) if event.argv in UNDO.values())
    assert {event.argv for event in log[first:] if event.kind == "start"} <= set(UNDO.values())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_ends_a_session_and_further_signals_do_not_interrupt_its_teardown(
    scene: Scene, number: signal.Signals
) -> None:
    scene.rule(STEPS["claude"], fifo="claude")
    scene.rule(f"rm --force --volumes {NAME}-sidecar", fifo="undo")
    child = scene.launch(*START)
    with scene.held("claude"):
        os.killpg(child.pid, number)  # as a terminal does
        with scene.held("undo"):
            for again in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
                os.killpg(child.pid, again)
    code, out, _ = scene.end(child)
    assert (code, out) == (128 + number, "")
    assert scene.undone == USUAL
    assert [event.more["code"] for event in scene.log if event.kind == "end" and event.argv in USUAL] == [0, 0]


def test_after_a_signal_the_clients_in_flight_end_before_the_undos(scene: Scene) -> None:
    scene.rule(STEPS["sidecar"], fifo="sidecar", late=0.5)
    scene.rule(STEPS["network"], fifo="network")
    child = scene.launch(*START)
    with scene.held("sidecar"), scene.held("network"):
        child.send_signal(signal.SIGTERM)
    assert scene.end(child)[0] == 128 + signal.SIGTERM
    assert max(scene.at("end", STEPS["sidecar"]), scene.at("end", STEPS["network"])) < scene.at("start", "rm --force")
    assert scene.undone == [UNDO["sidecar"], UNDO["network"]]


def test_a_failure_waits_for_the_steps_in_flight(scene: Scene) -> None:
    scene.rule(STEPS["sidecar"], fifo="sidecar", late=0.5)
    scene.rule(STEPS["network"], fifo="network", code=1, stderr="Error response from daemon: no luck\n")
    child = scene.launch(*START)
    with scene.held("sidecar"), scene.held("network"):
        pass
    code, _, err = scene.end(child)
    assert code == 70
    assert err.endswith("claude-bottle: network: no luck\n")
    assert scene.at("end", STEPS["sidecar"]) < scene.at("start", "rm --force")
    assert scene.undone == [UNDO["sidecar"], UNDO["network"]]


def test_a_hanging_step_is_terminated_before_the_undos(scene: Scene) -> None:
    scene.rule(STEPS["sidecar"], fifo="sidecar")
    scene.rule(STEPS["network"], fifo="network", code=1)
    child = scene.launch(*START, patches=TRUSTING | {"session.runner._SETTLE": 0})
    with scene.held("sidecar"):
        with scene.held("network"):
            pass
        assert scene.end(child)[0] == 70
    assert scene.at("end", STEPS["sidecar"]) < scene.at("start", "rm --force")


def test_a_build_is_terminated_at_once_if_another_step_fails(scene: Scene) -> None:
    scene.rule("image inspect", code=1)
    scene.rule("docker.io/pipelock", fifo="pull", code=1, stderr="manifest unknown\n")
    scene.rule("build", fifo="build")
    patches = TRUSTING | {"session.runner._SETTLE": 10_000}
    child = scene.launch(*START, patches=patches, CLAUDE_BOTTLE_PIPELOCK_IMAGE="docker.io/pipelock:1")
    with scene.held("build"):
        with scene.held("pull"):
            pass
        assert scene.end(child)[0] == 70
    assert scene.at("end", "docker build") > scene.at("end", "docker pull")
    assert scene.undone == []


def test_a_failed_build_prints_its_own_output(scene: Scene) -> None:
    scene.rule("image inspect", code=1)
    scene.rule("build", code=1, stdout="Step 1/9\n", stderr="no space left\n")
    code, out, err = scene.run(*START)
    assert (code, out) == (70, "")
    assert "(will be built)" in err
    assert "Step 1/9\n" in err
    assert err.endswith("no space left\nclaude-bottle: image: docker build failed, see above\n")
    assert scene.undone == []


def test_only_missing_images_and_networks_are_created(scene: Scene) -> None:
    scene.rule("Config.Labels}}] claude-bottle:", code=1, stderr="Error: No such image\n")
    scene.rule("network inspect", code=1, stderr="Error: No such network\n")
    assert scene.run(*START)[0] == 0
    made = [event.argv[1:3] for event in scene.log if event.starts("docker build") or event.starts("docker pull")]
    assert made == [("build", "--force-rm")]
    assert scene.at("end", EGRESS) < scene.at("start", STEPS["sidecar"])


def test_losing_the_race_to_create_the_shared_network_is_no_failure(scene: Scene) -> None:
    scene.rule("network inspect", code=1, times=1)
    scene.rule(EGRESS, code=1, stderr="conflicts with network 0a1b: networks have same bridge name\n")
    assert scene.run(*START)[0] == 0
    assert [event.argv[1:3] for event in scene.log if event.starts("claude-bottle-egress")][-1] == ("create", "--name")


def test_a_taken_subnet_is_replaced_by_the_next_free_one(scene: Scene) -> None:
    scene.rule(STEPS["network"], code=1, stderr=CLASH, times=1)
    scene.rule("network ls --quiet", stdout="aa\nbb\n")
    next_, free = "10.213.49.240/29", "10.213.49.248/29"
    taken = [[{"Subnet": next_}], [{"Subnet": "fd00::/64"}, {"Subnet": "172.17.0.0/16"}], None]
    scene.rule("IPAM", stdout="".join(f"{json.dumps(config)}\n" for config in taken))
    assert scene.run(*START)[0] == 0
    creates = [event.argv for event in scene.log if event.starts(STEPS["network"])]
    assert [argv[argv.index("--subnet") + 1] for argv in creates] == ["10.213.49.232/29", free]
    assert "10.213.49.251:8888" in [event.argv[-1] for event in scene.log if event.starts(STEPS["sidecar"])]
    assert scene.undone[-2:] == USUAL


def test_no_free_subnet_is_one_clear_error(scene: Scene) -> None:
    scene.rule("IPAM.Config}} vpn", stdout='[{"Subnet": "198.51.100.128/26", "Gateway": "198.51.100.129"}]\n')
    scene.rule(STEPS["network"], code=1, stderr=CLASH)
    scene.rule("network ls --quiet", stdout="aa\n")
    scene.rule("IPAM.Config}} aa", stdout='[{"Subnet": "10.9.0.0/28"}]\n')
    code, _, err = scene.run(*START, CLAUDE_BOTTLE_SUBNET="10.9.0.0/28", CLAUDE_BOTTLE_EGRESS_NETWORK="vpn")
    assert code == 70
    assert err.splitlines()[-1].startswith("claude-bottle: no free /29 is left in 10.9.0.0/28: ")
    _hold_teardown(scene)


def test_a_kernel_without_ipv6_gets_no_ipv6_sysctl(scene: Scene) -> None:
    said = "open /proc/sys/net/ipv6/conf/all/disable_ipv6: no such file or directory: unknown.\n"
    scene.rule(STEPS["bottle"], code=127, stderr=f"docker: Error response from daemon: runc: {said}", times=1)
    assert scene.run(*START)[0] == 0
    flags = ["net.ipv6.conf.all.disable_ipv6=1" in event.argv for event in scene.log if event.starts(STEPS["bottle"])]
    assert flags == [True, False]
    assert scene.undone[-2:] == USUAL


def test_a_kernel_without_br_netfilter_gets_a_shared_network_without_enable_icc(scene: Scene) -> None:
    scene.rule("network inspect", code=1)
    said = "cannot restrict inter-container communication: please ensure that br_netfilter kernel module is loaded\n"
    scene.rule(EGRESS, code=1, stderr=f"Error response from daemon: {said}", times=1)
    assert scene.run(*START)[0] == 0
    flags = ["com.docker.network.bridge.enable_icc=false" in event.argv for event in scene.log if event.starts(EGRESS)]
    assert flags == [True, False]


@pytest.mark.parametrize("gate", [True, False])
def test_a_sidecar_that_exits_is_reported_with_the_end_of_its_log(scene: Scene, gate: bool) -> None:
    """Either the gate or the self-test is the first to fail."""
    joined = "docker: Error response from daemon: cannot join network of a non running container: 0a.\n"
    if gate:
        scene.rule(STEPS["gate"], code=125, stderr=joined)
    scene.rule("State.Running", stdout="false\n")
    scene.rule("logs", stderr="config: unknown key\n")
    code, _, err = scene.run(*START, patches={})
    assert code == 70
    assert err.endswith("the end of its log:\nconfig: unknown key\n")
    assert err.count("claude-bottle: ") == 2  # the session's id and this error


def test_a_failed_lock_is_an_isolation_error(scene: Scene) -> None:
    scene.rule(STEPS["lock"], code=1, stderr="netlink: Error: Could not process rule: Not supported\n")
    code, _, err = scene.run(*START)
    assert code == 66
    assert "claude-bottle: lock: failed; " in err
    assert not [event for event in scene.log if event.starts(STEPS["claude"])]


def test_claude_does_not_run_in_a_bottle_that_fails_the_self_test(scene: Scene) -> None:
    code, _, err = scene.run(*START, patches={})
    assert code == 66
    assert "claude-bottle: the bottle is not as isolated as promised; nothing ran in it\n" in err
    assert not [event for event in scene.log if event.starts(STEPS["claude"])]
    assert scene.undone == USUAL


@pytest.mark.parametrize(
    ("rules", "patches", "code"),
    [
        ({f"network rm {NAME}": {"code": 1, "stderr": "has active endpoints\n"}}, {}, 75),
        (
            {f"volumes {NAME}-sidecar": {"fifo": "never"}},
            {"cleanup.stack._TIMEOUT": 2, "session.monitor._LAST_LINES": 0.1},
            75,
        ),
        # hidden neither by claude's own exit code nor by an earlier failure
        ({STEPS["claude"]: {"code": 3}, f"volumes {NAME}-sidecar": {"code": 1, "stderr": "no luck\n"}}, {}, 75),
        ({STEPS["selftest"]: {"code": 3}, f"volumes {NAME}-sidecar": {"code": 1, "stderr": "no luck\n"}}, {}, 75),
    ],
)
def test_a_failed_undo_is_reported_and_the_others_run(
    scene: Scene, rules: dict[str, dict[str, object]], patches: Patches, code: int
) -> None:
    for match, what in rules.items():
        scene.rule(match, **what)
    ended, _, err = scene.run(*START, patches=TRUSTING | patches)
    assert ended == code
    left = "network (has active endpoints)" if "network rm" in str(rules) else "sidecar ("
    assert err.splitlines()[-1].startswith(f"claude-bottle: left behind: {left}")
    assert ("could not be checked: exit status 3\n" in err) == (STEPS["selftest"] in rules)
    assert scene.undone[-2:] == USUAL


def test_a_signals_exit_code_wins_over_leftovers(scene: Scene) -> None:
    scene.rule(STEPS["claude"], fifo="claude")
    scene.rule("network rm", code=1, stderr="has active endpoints\n")
    child = scene.launch(*START)
    with scene.held("claude"):
        child.send_signal(signal.SIGHUP)
    code, _, err = scene.end(child)
    assert code == 128 + signal.SIGHUP
    assert "claude-bottle: left behind: network (has active endpoints)" in err


def test_leftovers_are_reported_if_docker_is_uninstalled_meanwhile(scene: Scene) -> None:
    scene.rule(STEPS["sidecar-start"], vanish=True, times=1)
    code, _, err = scene.run(*START)
    scene.bring_back()  # else the watchdog would look for it for ten minutes
    assert code == 75
    assert "claude-bottle: docker is not on PATH: " in err
    assert "left behind: " in err.splitlines()[-1]


def test_without_docker_the_start_is_one_error(scene: Scene) -> None:
    scene.docker.unlink()
    code, _, err = scene.run(*START)
    assert code == 69
    assert (err.count("\n"), "docker is not on PATH: install Docker" in err) == (1, True)


def test_a_debug_engine_is_warned_of_in_one_line_before_a_variable_is_handed_over(scene: Scene) -> None:
    scene.rule("info --format", stdout="true\n")
    scene.rule(STEPS["claude"], code=7)
    code, _, err = scene.run(*START)
    assert (code, err.count("\nwarning the engine runs in debug mode")) == (7, 1)


def test_an_interrupt_does_not_wait_for_an_unresponsive_engine(scene: Scene) -> None:
    scene.rule("image inspect", fifo="asked")
    child = scene.launch(*START, patches=TRUSTING | {"process.engine._TIMEOUT": 10_000})
    with scene.held("asked"):
        child.send_signal(signal.SIGINT)
        assert scene.end(child)[0] == 128 + signal.SIGINT


def test_an_unresponsive_engine_is_an_error_after_a_timeout(scene: Scene) -> None:
    scene.rule("image inspect", fifo="never")
    code, _, err = scene.run(*START, patches=TRUSTING | {"process.engine._TIMEOUT": 0.3})
    assert code == 69
    assert err == "claude-bottle: docker cannot be used: no answer within 0 s\n"


def test_without_a_token_no_docker_is_called(scene: Scene) -> None:
    code, out, err = scene.run(*START, CLAUDE_BOTTLE_OAUTH_TOKEN="")
    assert (code, out, err.count("\n")) == (78, "", 1)
    assert "`claude setup-token`" in err
    assert "`export CLAUDE_BOTTLE_OAUTH_TOKEN=" in err
    assert scene.log == []


def test_a_token_that_cannot_work_is_refused_before_any_docker(scene: Scene) -> None:
    code, out, err = scene.run(*START, CLAUDE_BOTTLE_OAUTH_TOKEN='"sk-ant-oat01-hunter2"')
    assert (code, out) == (78, "")
    assert err == "claude-bottle: CLAUDE_BOTTLE_OAUTH_TOKEN has quotes around the token: leave them out\n"
    assert scene.log == []


def test_without_a_terminal_yes_must_be_passed(scene: Scene) -> None:
    code, out, err = scene.run("start", "demo")
    assert (code, out, err.count("\n")) == (65, "", 1)
    assert err == "claude-bottle: cannot prompt: stdin is not a terminal; pass --yes to skip the prompt\n"
    assert scene.log == []


@pytest.mark.parametrize(
    ("answer", "code"), [("y\r", 5), ("n\r", 65), ("\r", 65), ("yess\r", 65), ("\x04", 65), ("\x03", 130)]
)
def test_the_question_is_answered_on_the_terminal(scene: Scene, answer: str, code: int) -> None:
    scene.rule(STEPS["claude"], stdout="in the bottle\r\n", code=5)
    command = [str(PATCHED), json.dumps(TRUSTING), "start", "demo"]
    child = pexpect.spawn(sys.executable, command, env=scene.environ, cwd=str(ROOT), encoding="utf-8", timeout=300)
    child.expect_exact("Start this session? [y/N] ")
    child.send(answer)
    rest = child.read()
    child.close()
    scene.pids.add(int(child.pid or 0))
    assert child.exitstatus == code
    assert ("in the bottle" in rest) == (code == 5)
    assert scene.undone == (USUAL if code == 5 else [])
    assert list(scene.tmp.iterdir()) == []
    asked = {("image", "inspect"), ("network", "inspect"), ("info", "--format"), ("ps", "--filter")}
    assert ({event.argv[1:3] for event in scene.log} == asked) == (code != 5)


def _answer(scene: Scene, answer: str, *words: str) -> tuple[int, list[str]]:
    """Start on a terminal and answer; return the exit code and the preflight's lines from the plan's on."""
    command = [str(PATCHED), json.dumps(TRUSTING), "start", "demo", *words]
    child = pexpect.spawn(sys.executable, command, env=scene.environ, cwd=str(ROOT), encoding="utf-8", timeout=300)
    child.expect_exact("Start this session? [y/N] ")
    shown = str(child.before).replace("\r", "")
    child.sendline(answer)
    child.read()
    child.close()
    return int(child.exitstatus or 0), shown[shown.index("plan ") :].splitlines()


def _approvals(scene: Scene) -> list[str]:
    folder = scene.key.with_name("approvals")
    return [path.read_text() for path in folder.iterdir()] if folder.exists() else []


def test_only_an_answered_yes_is_recorded_and_what_changes_then_is_shown(scene: Scene) -> None:
    for answer, known in (("n", 0), ("y", 1)):
        assert _answer(scene, answer)[1] == ["plan    first time"]
        assert len(_approvals(scene)) == known
    [before] = _approvals(scene)
    [line] = _answer(scene, "n")[1]
    assert re.fullmatch(r"plan    as approved on \d{4}-\d\d-\d\d \d\d:\d\d", line)
    (scene.agents / "bottles/default.yaml").write_text("egress: {allow: [example.com]}\n")
    assert _answer(scene, "n")[1][1:] == ["+ egress  example.com"]
    assert _approvals(scene) == [before]
    assert _answer(scene, "y", "--", "--model", "opus")[1][1:] == ["+ claude  2 arguments", "+ egress  example.com"]
    assert len(_approvals(scene)) == 1
    assert _answer(scene, "n")[1][1:] == ["- claude  2 arguments"]


def test_yes_neither_reads_nor_writes_what_was_approved(scene: Scene) -> None:
    folder = scene.key.with_name("approvals")
    os.mkfifo(folder)  # a folder could not be made there
    for words in (START, ("start", "demo", "--dry-run")):
        code, _, err = scene.run(*words)
        assert (code, "plan " in err, "yes" in err) == (0, False, False)
    assert stat.S_ISFIFO(folder.stat().st_mode)


def test_a_script_goes_on_if_nothing_changed_since_the_last_yes(scene: Scene) -> None:
    words = ("start", "demo", "--yes-if-unchanged")
    code, _, err = scene.run(*words)
    assert (code, scene.undone) == (65, [])
    assert err.endswith(
        "plan    first time\n"
        "claude-bottle: not started: no approval of this agent is recorded; answer y to a start without --yes\n"
    )
    assert _answer(scene, "y")[0] == 0
    [before] = _approvals(scene)
    code, _, err = scene.run(*words)
    assert (code, "\nplan    as approved on " in err) == (0, True)
    (scene.agents / "bottles/default.yaml").write_text("limits: {pids: 64}\n")
    code, _, err = scene.run(*words)
    assert code == 65
    assert err.splitlines()[-2:] == [
        "~ limits  2 cpus, 4 GiB memory, 64 processes (was 2 cpus, 4 GiB memory, 1024 processes)",
        "claude-bottle: not started: changed since you approved it, see above",
    ]
    assert scene.run(*words, "--", "--model", "opus")[0] == 65
    assert _approvals(scene) == [before]


def test_a_yes_that_cannot_be_recorded_is_one_line_and_no_failure(scene: Scene) -> None:
    scene.key.with_name("approvals").touch()
    command = [str(PATCHED), json.dumps(TRUSTING), "start", "demo"]
    child = pexpect.spawn(sys.executable, command, env=scene.environ, cwd=str(ROOT), encoding="utf-8", timeout=300)
    child.expect_exact("Start this session? [y/N] ")
    child.sendline("y")
    text = child.read()
    child.close()
    assert (child.exitstatus, text.count("your yes is not recorded: ")) == (0, 1)


def test_the_commit_identity_comes_from_the_manifest_the_repository_or_the_user(scene: Scene) -> None:
    program = shutil.which("git")
    assert program
    scene.docker.with_name("git").symlink_to(program)
    repo = Repo(scene.folder / "repo", scene.environ)
    repo.path.mkdir()
    repo.git("config", "--global", "user.name", "Ada")
    repo.git("config", "--global", "user.email", "ada@example.org")
    repo.git("init", "--quiet")
    repo.commit()
    repo.git("config", "user.name", "Ada at work")
    start = ("start", "demo", "--dry-run")
    assert "\n  git     Ada <ada@example.org>\n" in scene.run(*start)[2]
    assert "\n  git     Ada at work <ada@example.org>\n" in scene.run(*start, "--repo", "repo")[2]
    (scene.agents / "bottles" / "default.yaml").write_text("git: {email: bot@example.org}\n")
    assert "\n  git     Ada at work <bot@example.org>\n" in scene.run(*start, "--repo", "repo")[2]


FAR = "tcp://198.51.100.129:2375"
ASK = "/proc/net/fib_trie"


def test_a_host_elsewhere_is_asked_for_its_addresses_and_the_gate_refuses_them(scene: Scene) -> None:
    code, _, err = scene.run(*START, DOCKER_HOST=FAR)
    assert code == 0, err
    [asked] = [event for event in scene.log if event.starts(ASK)]
    assert ("--network", "host") in itertools.pairwise(asked.argv)
    assert f"claude-bottle.session={SESSION}" in asked.argv
    [gate] = [event for event in scene.log if event.ends(STEPS["gate"])]
    assert "ip daddr { 8.8.4.4, 172.17.0.1 } reject" in gate.more["stdin"]
    assert scene.at("end", ASK) < scene.at("start", STEPS["network"])
    assert not [argv for argv in scene.undone if argv[-1].endswith("-addresses")]  # it has removed itself


def test_this_machine_is_not_asked_for_its_addresses(scene: Scene) -> None:
    assert scene.run(*START)[0] == 0
    assert not [event for event in scene.log if event.starts(ASK)]


def test_a_host_without_an_answer_gets_no_session(scene: Scene) -> None:
    scene.rule(ASK, stdout="no such thing\n")
    code, _, err = scene.run(*START, DOCKER_HOST=FAR)
    assert (code, "addresses: the engine's host lists none" in err) == (70, True), err
    assert not [event for event in scene.log if event.starts(STEPS["network"])]


def test_a_failed_question_is_undone(scene: Scene) -> None:
    scene.rule(ASK, code=125, stderr="docker: Error response from daemon: cannot share the host's network\n")
    code, _, err = scene.run(*START, DOCKER_HOST=FAR)
    assert (code, "addresses: cannot share the host's network" in err) == (70, True), err
    assert [argv[-1] for argv in scene.undone] == [f"{NAME}-addresses"]


def test_a_missing_image_is_built_once_before_the_question(scene: Scene) -> None:
    scene.rule("Config.Labels}}] claude-bottle:", code=1, stderr="Error: No such image\n")
    code, _, err = scene.run(*START, DOCKER_HOST=FAR)
    assert code == 0, err
    assert scene.at("end", "build --force-rm") < scene.at("start", ASK)  # at() also says that there is one


def test_a_dry_run_shows_the_question_and_where_its_answer_goes(scene: Scene) -> None:
    code, out, err = scene.run("start", "demo", "--dry-run", DOCKER_HOST=FAR)
    assert (code, scene.log) == (0, []), err
    steps = out.split("# ")
    assert [step for step in steps if step.startswith("addresses\n")], out
    assert "    # here the addresses of the engine's host are refused; it has not been asked for them\n" in out
    assert "# undo addresses\n" in out


def test_a_silence_that_heals_after_the_agent_s_end_is_named(scene: Scene) -> None:
    """The reaper has ended everything, the bottle is still there: 137 alone would say nothing."""
    program = shutil.which("git")
    assert program
    scene.docker.with_name("git").symlink_to(program)
    scene.environ["PATH"] += ":/usr/bin:/bin"
    repo = Repo(scene.folder / "repo", scene.environ)
    repo.path.mkdir()
    repo.git("config", "--global", "user.name", "Ada")
    repo.git("config", "--global", "user.email", "ada@example.org")
    repo.git("init", "--quiet")
    repo.commit("one", file="1")
    start = repo.git("rev-parse", "HEAD").strip()
    scene.rule("kill -KILL -1", stdout="up\n", stays="silence", code=1)
    scene.rule("- keep /work", stdout=json.dumps({"kind": "head", "tip": start, "before": ""}) + "\n")
    scene.rule(STEPS["claude"], fifo="claude", code=137)
    patches = TRUSTING | {"session.start._GRACE": 1}
    child = scene.launch(*START, "--repo", str(repo.path), patches=patches, DOCKER_HOST=FAR)
    with scene.held("claude"):
        with scene.held("silence"):
            pass
        while not any(event.ends("kill -KILL -1") for event in scene.log):
            time.sleep(0.01)
    code, _, err = scene.end(child)
    assert (code, err.count("the link to the engine was lost, which ended the session")) == (69, 1), err
