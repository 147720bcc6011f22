"""What the credential proxy signs, trusts and may do, and where the token is, judged."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from claude_bottle.bottle.plan import Plan, Run
from claude_bottle.egress.allowlist import API, Host
from claude_bottle.egress.credential_proxy import Signed
from claude_bottle.host.machine import TOKEN_VARIABLE
from claude_bottle.selftest import credential_checks
from claude_bottle.selftest.credential_checks import RIGHT, WRONG
from claude_bottle.selftest.receipt import Receipt, Verdict
from tests.support import plans
from tests.support.receipts import GATE, IMAGE, SEARCH, SIDECAR, answers, authority, cgroup, judged, put, shown

NEW = ("signing", "upstream", "authority", "credential-proxy", "token")
TOKEN = plans.TOKEN
HOSTS = (API, "api.example.net", "code.example.net:8443")
CREDENTIALS = """\
credentials:
  - host: api.example.net
    header: {Authorization: "Bearer ${SECRET}", X_Team: "7-${SECRET} "}
  - host: "code.example.net:8443"
    basic: {user: ada, password: "${SECRET}"}
    methods: [HEAD, DELETE]
    paths: [/exact, /acme/]
"""
FOUND = f"a process or a file of the bottle has the value of {TOKEN_VARIABLE}"


def told(receipt: Receipt) -> list[tuple[str, str]]:
    """Return the failures, each by its name."""
    return [(check.name, check.detail) for check in receipt.failed]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """The plan of a session with two hosts of its user's, one of them with methods and paths."""
    folder = plans.manifests(tmp_path, CREDENTIALS)
    return plans.plan(folder, Run(terminal=True), CLAUDE_BOTTLE_OAUTH_TOKEN=TOKEN, SECRET="s3cret")


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        ([200, "{}"], "the credential proxy answers 200 for {key}"),
        ([403, ""], "the credential proxy answers 403 for {key}"),
        ([504, ""], "the credential proxy answers 504 for {key}"),
        ([], "did not run (ValueError: not enough values to unpack (expected 2, got 0))"),
        (None, "did not run (TypeError: cannot unpack non-iterable NoneType object)"),
    ],
)
@pytest.mark.parametrize("key", HOSTS)
def test_an_answer_for_the_wrong_certificate_is_judged(plan: Plan, key: str, value: object, detail: str) -> None:
    said = answers(plan)
    said["signed"][key][WRONG] = value
    assert told(judged(plan, said, shown(plan))) == [("upstream", detail.format(key=key))]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ('{"digest": "%s"}' % ("0" * 40), "other credentials would have left for {key}"),
        ('{"digest": ""}', "other credentials would have left for {key}"),
        ('{"digest": null}', "other credentials would have left for {key}"),
        ("{}", "did not run (KeyError: 'digest')"),
        ("[]", "did not run (TypeError: list indices must be integers or slices, not str)"),
        ("", "did not run (JSONDecodeError: Expecting value: line 1 column 1 (char 0))"),
    ],
)
@pytest.mark.parametrize("key", HOSTS)
def test_other_credentials_are_told(plan: Plan, key: str, body: str, detail: str) -> None:
    said = answers(plan)
    said["signed"][key][RIGHT] = [200, body]
    assert ("signing", detail.replace("{key}", key)) in told(judged(plan, said, shown(plan)))


@pytest.mark.parametrize(
    ("token", "secret", "keys"), [(f"{TOKEN}x", "s3cret", HOSTS[:1]), (TOKEN, "s3cret2", HOSTS[1:])]
)
def test_the_digests_are_those_of_the_users_own_credentials(
    tmp_path: Path, plan: Plan, token: str, secret: str, keys: tuple[str, ...]
) -> None:
    folder = plans.manifests(tmp_path / "other", CREDENTIALS)
    other = plans.plan(folder, Run(terminal=True), CLAUDE_BOTTLE_OAUTH_TOKEN=token, SECRET=secret)
    said = answers(plan)
    said["signed"] = answers(other)["signed"]
    detail = "; ".join(f"other credentials would have left for {key}" for key in keys)
    assert told(judged(plan, said, shown(plan))) == [("signing", detail)]


@pytest.mark.parametrize("key", HOSTS)
def test_a_self_test_of_the_proxy_that_fails_is_told(plan: Plan, key: str) -> None:
    """A wrong certificate is refused as well by a proxy that cannot reach any server."""
    said = answers(plan)
    said["signed"][key][RIGHT][0] = 502
    assert told(judged(plan, said, shown(plan))) == [
        ("signing", f"the credential proxy answers 502 for {key}"),
        ("upstream", f"the credential proxy does not reach the server with the right certificate for {key} either"),
    ]


@pytest.mark.parametrize(
    ("key", "request_", "status"),
    [
        (API, "GET /.claude-bottle/elsewhere", 200),
        (API, "GET /v1/messages/%2e%2e/", 403),
        (HOSTS[2], "POST /exact", 200),
        (HOSTS[2], "HEAD /.claude-bottle/elsewhere", 200),
        (HOSTS[2], "HEAD /acme/%2e%2e/", 502),
    ],
)
def test_a_forbidden_request_that_is_not_refused_is_told(plan: Plan, key: str, request_: str, status: int) -> None:
    said = answers(plan)
    method, _, path = request_.partition(" ")
    put(said, ("signed", key, f"{method} /.claude-bottle/self-test/right?{path}"), [status, ""])
    detail = f"the credential proxy answers {status} to a forbidden {request_} for {key}"
    assert told(judged(plan, said, shown(plan))) == [("signing", detail)]


@pytest.mark.parametrize(
    ("methods", "paths", "expected"),
    [
        ((), (), ()),
        (("GET",), (), ("DELETE /",)),
        (("DELETE", "GET", "POST"), (), ("POSTX /",)),
        ((), ("/",), ("GET /%2e%2e/",)),  # the prefix of everything that can be read in one way
        ((), ("/.claude-bottle/",), ("GET /.claude-bottle/%2e%2e/",)),
        ((), ("/x", "/.claude-bottle/elsewhere"), ("GET /x/%2e%2e/",)),
        ((), ("/x", "/y/"), ("GET /y/%2e%2e/", "GET /.claude-bottle/elsewhere")),
        (("PUT",), ("/y/",), ("DELETE /y/", "PUT /y/%2e%2e/", "PUT /.claude-bottle/elsewhere")),
    ],
)
def test_only_what_is_not_declared_is_forbidden(
    methods: tuple[str, ...], paths: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    host = Signed(Host("x.example"), {}, methods, paths)
    assert tuple(credential_checks.forbidden(host)) == expected


def test_each_host_gets_a_foreign_value_in_each_of_its_headers(plan: Plan) -> None:
    asked = {key: (name, port, headers) for key, name, port, headers, _ in credential_checks.question(plan)["signed"]}
    assert {key: (name, port) for key, (name, port, _) in asked.items()} == {
        API: (API, 443),
        "api.example.net": ("api.example.net", 443),
        "code.example.net:8443": ("code.example.net", 8443),
    }
    assert {"X_Team", "X-Team"} <= asked["api.example.net"][2].keys()
    for _, _, headers in asked.values():
        assert {"Authorization", "X-Api-Key", "Cookie", "Private-Token"} <= headers.keys()
    overridden = [key for key, (*_, headers) in asked.items() if "X-HTTP-Method-Override" in headers]
    assert overridden == [API, "code.example.net:8443"]  # the other one may get such a header of the agent's


def test_a_bottle_without_a_proxy_is_asked_nothing_of_it(tmp_path: Path) -> None:
    """Its requests would go outside."""
    login = plans.plan(plans.manifests(tmp_path), Run(terminal=True, login=True))
    assert credential_checks.question(login)["signed"] == []


def test_no_digest_says_what_another_host_gets(tmp_path: Path) -> None:
    """Else the agent could compare a secret with what it writes itself into the same header elsewhere."""
    same = """\
credentials:
  - {host: a.example.net, header: {X-A: "${SECRET}"}}
  - {host: b.example.net, header: {X-A: "${SECRET}"}}
"""
    made = plans.plan(plans.manifests(tmp_path, same), Run(terminal=True), SECRET="s3cret")
    assert len(set(made.signing.digests.values())) == 3


def test_the_bottle_does_not_get_the_key_of_the_proxys_digests(plan: Plan) -> None:
    """With it, a short password could be guessed from its digest."""
    key = json.loads(plan.signing.settings)["digest_key"]
    assert key == bytes(20).hex()  # of tests.support.plans
    assert key not in repr(credential_checks.question(plan))
    assert key != credential_checks.sought(plan)[1] == plan.signing.key


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
    body = json.loads(said["signed"][API][RIGHT][1])
    body["processes"][pid][key] = value
    said["signed"][API][RIGHT][1] = json.dumps(body)
    [(name, found)] = told(judged(plan, said, shown(plan)))
    assert name == "credential-proxy"
    assert detail.replace("process 33", f"process {pid}") in found


@pytest.mark.parametrize("pids", [(), ("1",), ("33",)])
def test_processes_of_the_proxy_that_were_not_seen_are_told(plan: Plan, pids: tuple[str, ...]) -> None:
    said = answers(plan)
    body = json.loads(said["signed"][API][RIGHT][1])
    body["processes"] = {pid: body["processes"][pid] for pid in pids}
    said["signed"][API][RIGHT][1] = json.dumps(body)
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
    right = said["signed"][API][RIGHT]
    right[1] = json.dumps(json.loads(right[1]) | {"limits": files})
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
    said = {key: value for key, value in answers(plan).items() if key not in ("signed", "authority", "tokens")}
    assert {name for name, _ in told(judged(plan, said, shown(plan)))} == set(NEW)


@pytest.mark.parametrize("key", HOSTS)
def test_a_host_without_an_answer_is_told(plan: Plan, key: str) -> None:
    said = answers(plan)
    del said["signed"][key]
    failed = dict(told(judged(plan, said, shown(plan))))
    assert failed["signing"] == failed["upstream"] == f"did not run (KeyError: '{key}')"
    assert failed.keys() - {"signing", "upstream"} == ({"credential-proxy"} if key == API else set())
