"""What the credential proxy signs, trusts and may do, and where the token is, judged."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from claude_bottle.bottle.plan import Plan, Run
from claude_bottle.host.machine import TOKEN_VARIABLE
from claude_bottle.selftest.receipt import Receipt, Verdict
from tests.support import plans
from tests.support.receipts import GATE, IMAGE, SEARCH, SIDECAR, answers, authority, cgroup, judged, put, shown

NEW = ("signing", "upstream", "authority", "credential-proxy", "token")
FOUND = f"a process or a file of the bottle has the value of {TOKEN_VARIABLE}"


def told(receipt: Receipt) -> list[tuple[str, str]]:
    """Return the failures, each by its name."""
    return [(check.name, check.detail) for check in receipt.failed]


@pytest.mark.parametrize(
    ("key", "value", "failed"),
    [
        ("wrong", [200, "{}"], [("upstream", "the credential proxy answers 200")]),
        ("wrong", [403, ""], [("upstream", "the credential proxy answers 403")]),
        ("wrong", [504, ""], [("upstream", "the credential proxy answers 504")]),
        ("wrong", [], [("upstream", "did not run (ValueError: not enough values to unpack (expected 2, got 0))")]),
        ("wrong", None, [("upstream", "did not run (TypeError: cannot unpack non-iterable NoneType object)")]),
    ],
)
def test_an_answer_for_the_wrong_certificate_is_judged(
    plan: Plan, key: str, value: object, failed: list[tuple[str, str]]
) -> None:
    said = answers(plan)
    said[key] = value
    assert told(judged(plan, said, shown(plan))) == failed


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ('{"digest": "%s"}' % ("0" * 40), "other credentials would have left"),
        ('{"digest": ""}', "other credentials would have left"),
        ('{"digest": null}', "other credentials would have left"),
        ("{}", "did not run (KeyError: 'digest')"),
        ("[]", "did not run (TypeError: list indices must be integers or slices, not str)"),
        ("", "did not run (JSONDecodeError: Expecting value: line 1 column 1 (char 0))"),
    ],
)
def test_other_credentials_are_told(plan: Plan, body: str, detail: str) -> None:
    said = answers(plan)
    said["signed"] = [200, body]
    assert ("signing", detail) in told(judged(plan, said, shown(plan)))


def test_the_digest_is_that_of_the_users_own_token(tmp_path: Path, plan: Plan) -> None:
    other = plans.plan(
        plans.manifests(tmp_path / "other"), Run(terminal=True), CLAUDE_BOTTLE_OAUTH_TOKEN=f"{plans.TOKEN}x"
    )
    said = answers(plan)
    said["signed"] = answers(other)["signed"]
    assert told(judged(plan, said, shown(plan))) == [("signing", "other credentials would have left")]


def test_a_self_test_of_the_proxy_that_fails_is_told(plan: Plan) -> None:
    """A wrong certificate is refused as well by a proxy that cannot reach any server."""
    said = answers(plan)
    said["signed"][0] = 502
    assert told(judged(plan, said, shown(plan))) == [
        ("signing", "the credential proxy answers 502"),
        ("upstream", "the credential proxy does not reach the server with the right certificate either"),
    ]


def lines(plan: Plan, old: str, *new: str) -> list[str]:
    """Return the lines of a good authority, one of them replaced by others."""
    whole = authority(plan)
    at = whole.index(old)
    return [*whole[:at], *new, *whole[at + 1 :]]


@pytest.mark.parametrize(
    ("old", "new", "detail"),
    [
        ("CA:TRUE, pathlen:0", ("CA:TRUE",), "it is no authority, or may make others"),
        ("CA:TRUE, pathlen:0", ("CA:TRUE, pathlen:1",), "it is no authority, or may make others"),
        ("CA:TRUE, pathlen:0", ("CA:FALSE",), "it is no authority, or may make others"),
        ("X509v3 Basic Constraints: critical", ("X509v3 Basic Constraints:",),
         "it is no authority, or may make others"),
        ("Certificate Sign", ("Digital Signature, Certificate Sign",), "its key is not for signing certificates alone"),
        ("X509v3 Key Usage: critical", (),
         "it is no authority, or may make others; its key is not for signing certificates alone"),
        ("X509v3 Name Constraints: critical", ("X509v3 Name Constraints:",), "its names are not constrained"),
        ("Permitted:", ("Excluded:",), "its names are not constrained"),  # all but these
        ("Permitted:", (), "its names are not constrained"),
        ("Excluded:", (), "its names are not constrained"),
        ("DNS:claude.ai", ("DNS:claude.ai", "DNS:example.com", "DNS:.com"),
         "it may sign for DNS:.com; it may sign for DNS:example.com"),
        ("DNS:claude.ai", ("IP:1.2.3.4/255.255.255.255", "DNS:claude.ai"),
         "it may sign for IP:1.2.3.4/255.255.255.255"),
        ("DNS:claude.ai", (), "it may not sign for DNS:claude.ai"),
        ("IP:0.0.0.0/0.0.0.0", (), "it may sign for addresses"),
        ("IP:0.0.0.0/0.0.0.0", ("IP:10.0.0.0/255.0.0.0",), "it may sign for addresses"),
        ("IP:0:0:0:0:0:0:0:0/0:0:0:0:0:0:0:0", (), "it may sign for addresses"),
    ],
)  # fmt: skip
def test_an_authority_for_more_is_told(plan: Plan, old: str, new: tuple[str, ...], detail: str) -> None:
    said = answers(plan)
    said["authority"] = [1, lines(plan, old, *new)]
    assert told(judged(plan, said, shown(plan))) == [("authority", detail)]


def test_an_authority_whose_names_are_all_missing_is_told(plan: Plan) -> None:
    """With none permitted, every one is."""
    said = answers(plan)
    said["authority"] = [1, [line for line in authority(plan) if not line.startswith("DNS:")]]
    [(name, detail)] = told(judged(plan, said, shown(plan)))
    assert (name, detail.count("it may not sign for DNS:")) == ("authority", len(plan.ended))


@pytest.mark.parametrize("count", [0, 2])
def test_another_authority_behind_the_first_is_told(plan: Plan, count: int) -> None:
    said = answers(plan)
    said["authority"][0] = count
    assert told(judged(plan, said, shown(plan))) == [("authority", f"there are {count} certificates")]


@pytest.mark.parametrize("value", [None, [], [1], [1, None], 7, [1, [3]]])
def test_garbage_for_an_authority_is_told(plan: Plan, value: object) -> None:
    said = answers(plan)
    said["authority"] = value
    [(name, detail)] = told(judged(plan, said, shown(plan)))
    assert name == "authority"
    assert detail.startswith("did not run")


@pytest.mark.parametrize(
    ("key", "value", "detail"),
    [
        ("Uid", [65533, 65533, 0, 65533], "process 33 has the users [65533, 65533, 0, 65533] and the groups"),
        ("Uid", [0] * 4, "process 33 has the users [0, 0, 0, 0] and the groups"),
        ("Uid", [], "process 33 has the users [] and the groups"),
        ("Gid", "65533\t0\t65533\t65533", "and the groups ['65533', '0', '65533', '65533']"),
        ("Gid", "", "and the groups []"),
        ("NoNewPrivs", "0", "process 33 can gain privileges"),
        ("CapInh", "0000000000001000", "process 33 has CapInh 0000000000001000"),
        ("CapPrm", "0000000000001000", "process 33 has CapPrm 0000000000001000"),
        ("CapEff", "0000000000001000", "process 33 has CapEff 0000000000001000"),
        ("CapBnd", "00000000000011c0", "process 33 has CapBnd 00000000000011c0"),
        ("CapAmb", "0000000000001000", "process 33 has CapAmb 0000000000001000"),
        ("CapAmb", "", "did not run (ValueError: "),
        ("Uid", None, "did not run (TypeError: "),
    ],
)  # fmt: skip
@pytest.mark.parametrize("pid", ["1", "33"])
def test_a_process_of_the_proxy_with_a_privilege_is_told(
    plan: Plan, pid: str, key: str, value: object, detail: str
) -> None:
    said = answers(plan)
    body = json.loads(said["signed"][1])
    body["processes"][pid][key] = value
    said["signed"][1] = json.dumps(body)
    [(name, found)] = told(judged(plan, said, shown(plan)))
    assert name == "credential-proxy"
    assert detail.replace("process 33", f"process {pid}") in found


@pytest.mark.parametrize("pids", [(), ("1",), ("33",)])
def test_processes_of_the_proxy_that_were_not_seen_are_told(plan: Plan, pids: tuple[str, ...]) -> None:
    said = answers(plan)
    body = json.loads(said["signed"][1])
    body["processes"] = {pid: body["processes"][pid] for pid in pids}
    said["signed"][1] = json.dumps(body)
    assert told(judged(plan, said, shown(plan))) == [("credential-proxy", "its processes were not seen")]


@pytest.mark.parametrize(
    ("path", "value", "detail"),
    [
        (("Config", "Image"), "own:1", "its image is own:1"),
        (("Config", "Env"), ["SOME_TOKEN=x"], "SOME_TOKEN is in its environment"),
        (("HostConfig", "NetworkMode"), "host", "network mode host"),
        (("HostConfig", "NetworkMode"), "container:0123", "network mode container:0123"),
        (("HostConfig", "ReadonlyRootfs"), False, "its file system is writable"),
        (("HostConfig", "Privileged"), True, "it is privileged"),
        (("HostConfig", "CapDrop"), None, "CapDrop is None"),
        (("HostConfig", "CapAdd"), ["NET_ADMIN", "SETGID", "SETPCAP", "SETUID", "SYS_PTRACE"],
         "CapAdd is ['NET_ADMIN', 'SETGID', 'SETPCAP', 'SETUID', 'SYS_PTRACE']"),
        (("HostConfig", "SecurityOpt"), None, "SecurityOpt is None"),
        (("HostConfig", "Devices"), ["/dev/sda"], "Devices is ['/dev/sda']"),
        (("HostConfig", "GroupAdd"), ["0"], "GroupAdd is ['0']"),
        (("HostConfig", "PidMode"), "host", "PidMode is host"),
        (("HostConfig", "IpcMode"), "host", "IpcMode is host"),
        (("HostConfig", "RestartPolicy", "Name"), "always", "its restart policy is always"),
        (("Mounts",), [{"Type": "bind", "Destination": "/x"}], "bind at /x"),
        (("Name",), "/another", "did not run (KeyError: 'HostConfig')"),
    ],
)  # fmt: skip
def test_another_container_of_the_proxy_is_told(plan: Plan, path: tuple[str, ...], value: object, detail: str) -> None:
    seen = shown(plan)
    put(seen[GATE], path, value)
    assert told(judged(plan, answers(plan), seen)) == [("credential-proxy", detail)]


def test_a_proxy_beside_another_sidecar_is_told(plan: Plan) -> None:
    seen = shown(plan)
    seen[SIDECAR]["Id"] = "0ther"
    assert told(judged(plan, answers(plan), seen)) == [("credential-proxy", "network mode container:51deca4")]


WITHOUT = "see ./cli.py doctor; limits: {memory: none} in the bottle does without"


def limited(plan: Plan, files: dict[str, str]) -> dict[str, Any]:
    """What the probe says if these are the limits in force on the proxy."""
    said = answers(plan)
    said["signed"][1] = json.dumps(json.loads(said["signed"][1]) | {"limits": files})
    return said


@pytest.mark.parametrize(
    ("files", "detail"),
    [
        (cgroup(1 << 30, 33), "processes: limited to 33, not 32"),
        (cgroup(1 << 31, 32), "memory: limited to 2147483648, not 1073741824"),
        (cgroup(1 << 30, 32) | {"memory.memsw.limit_in_bytes": "2147483648\n"},
         "memory and swap: limited to 2147483648, not 1073741824"),
        (cgroup((1 << 63) - 4096, 32),
         f"memory: not limited; {WITHOUT}"),
        ({"pids.max": "32\n"}, f"memory: the limit in force cannot be read; {WITHOUT}"),
    ],
)  # fmt: skip
def test_limits_in_force_on_the_proxy_are_told(plan: Plan, files: dict[str, str], detail: str) -> None:
    assert told(judged(plan, limited(plan, files), shown(plan))) == [("credential-proxy", detail)]


def test_a_kernel_that_does_not_limit_the_proxys_swap_is_a_warning(plan: Plan) -> None:
    files = cgroup(1 << 30, 32)
    del files["memory.memsw.limit_in_bytes"]
    receipt = judged(plan, limited(plan, files), shown(plan))
    assert receipt.failed == ()
    assert receipt.line().splitlines()[1].split()[:2] == ["warning", "credential-proxy"]


def test_the_token_in_the_bottle_is_told(plan: Plan) -> None:
    found = {"digests": ["0" * 40, plan.signing.token], "whole": True}
    assert told(judged(plan, answers(plan), shown(plan), home=found)) == [("token", FOUND)]
    said = answers(plan)
    said["tokens"] = {**found, "whole": False}
    assert told(judged(plan, said, shown(plan))) == [("token", FOUND)]


@pytest.mark.parametrize(
    ("place", "path", "value"),
    [
        (GATE, ("Config", "Env"), [f"HEADER=Bearer {plans.TOKEN}"]),
        (IMAGE, ("Config", "Labels"), {"x": f"a\n{plans.TOKEN}\n"}),
        (SIDECAR, ("Config", "Cmd"), ["run", plans.TOKEN]),
    ],
)
def test_the_token_in_what_the_engine_shows_is_told(
    plan: Plan, place: int, path: tuple[str, ...], value: object
) -> None:
    seen = shown(plan)
    put(seen[place], path, value)
    expected = [("token", f"docker inspect shows the value of {TOKEN_VARIABLE}")]
    assert told(judged(plan, answers(plan), seen)) == expected


@pytest.mark.parametrize("where", ["probe", "home"])
def test_a_search_that_took_too_long_is_a_warning(plan: Plan, where: str) -> None:
    half: dict[str, object] = {**SEARCH, "whole": False}
    said = answers(plan) | ({"tokens": half} if where == "probe" else {})
    receipt = judged(plan, said, shown(plan), home=half if where == "home" else SEARCH)
    [warned] = [check for check in receipt.checks if check.verdict is not Verdict.PASSED]
    assert (warned.name, warned.verdict) == ("token", Verdict.WARNING)
    assert "more files than can be searched" in warned.detail


def test_a_token_of_another_shape_is_a_warning(plan: Plan) -> None:
    other = replace(plan, signing=replace(plan.signing, shaped=False))
    [warned] = [
        check for check in judged(other, answers(plan), shown(plan)).checks if check.verdict is not Verdict.PASSED
    ]
    assert (warned.name, warned.verdict) == ("token", Verdict.WARNING)
    assert warned.detail.startswith(f"{TOKEN_VARIABLE} has another shape")


@pytest.mark.parametrize("value", [None, [], {}, {"digests": []}, {"whole": True}, {"digests": 3, "whole": True}])
def test_garbage_of_a_search_is_told(plan: Plan, value: Any) -> None:
    for said, home in ((answers(plan) | {"tokens": value}, SEARCH), (answers(plan), value)):
        [(name, detail)] = told(judged(plan, said, shown(plan), home=home))
        assert name == "token"
        assert detail.startswith("did not run")


def test_what_is_not_answered_fails_every_new_check(plan: Plan) -> None:
    said = {key: value for key, value in answers(plan).items() if key not in ("signed", "wrong", "authority", "tokens")}
    assert {name for name, _ in told(judged(plan, said, shown(plan)))} == set(NEW)
