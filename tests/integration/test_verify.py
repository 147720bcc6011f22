"""The commands that look before a session: verify and doctor."""

import json

from claude_bottle.selftest.receipt import CREDENTIAL_RULES, RULES
from tests.support.sessions import CLI, Bench, Ended, docker


def run(bench: Bench, *words: str, **env: str) -> Ended:
    """Run a command that needs no token, without one."""
    return bench.run((str(CLI), *words), {"CLAUDE_BOTTLE_OAUTH_TOKEN": "", **env})


def leaking(bench: Bench) -> None:
    """Give the agent a bottle whose own image mounts a volume."""
    folder = bench.agents / "leaking"
    folder.mkdir()
    (folder / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM $BASE_IMAGE\nVOLUME /data\n")
    bench.write({"image": {"dockerfile": "../leaking/Dockerfile"}})


def test_verify_proves_a_bottle_without_claude_and_token(bench: Bench) -> None:
    ended = run(bench, "verify", bench.name, "--json")
    assert ended.code == 0, ended
    receipt = json.loads(ended.out)[bench.name]
    assert receipt["passed"]
    assert [check["name"] for check in receipt["checks"]] == [rule.name for rule in (*RULES, *CREDENTIAL_RULES)]
    # On a machine that is busy enough the names of the test world resolve too late, which is told as a warning.
    wary = {check["name"] for check in receipt["checks"] if check["verdict"] == "warning"}
    assert wary <= {"api"}
    assert bench.world.requests(bench.token) == ()


def test_verify_proves_the_hosts_of_credentials_without_them(bench: Bench) -> None:
    """Nor do they have to exist: no request leaves."""
    narrow = {"host": "git.example.com:8443", "basic": {"user": "ada", "password": "${SECRET}"}, "paths": ["/acme/"]}
    bench.write({"credentials": [{"host": "api.example.com", "header": {"X-Key": "${SECRET}"}}, narrow]})
    ended = run(bench, "verify", bench.name, "--json")
    assert ended.code == 0, ended
    checks = {check["name"]: check["verdict"] for check in json.loads(ended.out)[bench.name]["checks"]}
    assert (checks["signing"], checks["upstream"]) == ("passed", "passed")


def test_a_bottle_that_is_not_isolated_is_told_and_not_started(bench: Bench) -> None:
    leaking(bench)
    ended = run(bench, "verify", bench.name)
    assert ended.code == 66, ended
    [line] = [line.split() for line in ended.out.decode().splitlines() if line.startswith("  failed  ")][:1]
    assert " ".join(line) == "failed mounts volume at /data; a mount at /data, by the kernel"
    started = bench.start("--yes", "--print", "hello")
    assert (started.code, started.out) == (66, b"")
    assert "mounts" in started.err
    assert bench.world.requests(bench.token) == ()


def test_doctor_tells_what_a_start_finds(bench: Bench) -> None:
    ended = bench.run((str(CLI), "doctor", "--json"), {})
    assert ended.code == 0, ended
    findings = {finding["name"]: finding for finding in json.loads(ended.out)}
    assert not any(finding["fault"] for finding in findings.values())
    version = int(findings["docker engine"]["detail"].partition(".")[0])
    assert [name for name, finding in findings.items() if finding["open"]] == (["AF_VSOCK"] if version < 23 else [])
    wanted = ("token", "docker client", "docker engine", "CVE-2024-29018", "gateway modes", "image", "sidecar image")
    abilities = ("limits", "swap", "seccomp", "apparmor", "users")
    assert {*wanted, *abilities, "AF_VSOCK", "debug log", "nf_tables", "subnets", "leftovers"} == findings.keys()


def test_an_engine_that_would_log_the_token_is_warned_of(bench: Bench) -> None:
    """The engine of these tests is not to be switched, so its client says that it was."""
    bench.puppet("hello")
    debug = bench.wrap("info*Debug*) echo true; exit ;;")
    ended = bench.run((str(CLI), "doctor"), {"PATH": debug})
    [line] = [line for line in ended.out.decode().splitlines() if " debug log " in line]
    assert (ended.code, line.split()[0]) == (0, "open"), ended
    started = bench.start("--yes", PATH=debug)
    assert (started.code, started.err.count("\nwarning the engine runs in debug mode")) == (0, 1), started


def test_doctor_says_why_a_start_cannot_work(bench: Bench) -> None:
    no_token = run(bench, "doctor")
    silent = bench.run((str(CLI), "doctor"), {"DOCKER_HOST": "unix:///nonexistent"})
    old = bench.run((str(CLI), "doctor"), {"PATH": bench.wrap('version*) echo "28.2.2 19.03.15"; exit ;;')})
    for ended, told in ((no_token, "claude setup-token"), (silent, "docker cannot be used: "), (old, "is too old")):
        [fault] = [line for line in ended.out.decode().splitlines() if line.startswith("FAULT")]
        assert (ended.code, told in fault) == (69, True), ended


def test_what_a_doctor_leaves_that_was_killed_is_no_session_and_is_cleaned_up(bench: Bench) -> None:
    """Its container is made and does not run, which is as good as killed. Another's watchdog may remove it first."""
    id_file = bench.folder / "id"
    made = bench.wrap(f'run*-doctor-*) shift; docker create "$@" | tee {id_file}; exit ;;')
    assert bench.run((str(CLI), "doctor"), {"PATH": made}).code == 0
    listed = json.loads(run(bench, "list", "--json").out)
    assert {session["session"] for session in listed}.isdisjoint({"", "-", "doctor"})
    assert run(bench, "cleanup").code == 0
    left = id_file.read_text().strip()
    assert len(left) == 64
    assert left not in docker("ps", "--all", "--quiet", "--no-trunc").split()


def test_doctor_sees_a_kernel_without_nf_tables(bench: Bench) -> None:
    nft = 'run*doctor*) echo "nft: Operation not supported" >&2; exit 1 ;;'
    ended = bench.run((str(CLI), "doctor"), {"PATH": bench.wrap(nft)})
    [fault] = [line for line in ended.out.decode().splitlines() if line.startswith("FAULT")]
    assert (ended.code, "nf_tables" in fault, "Operation not supported" in fault) == (69, True, True), ended
