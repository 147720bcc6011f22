"""What docker built, judged."""

from typing import Any

import pytest

from claude_bottle.bottle.plan import Plan
from claude_bottle.selftest import inspect_checks
from tests.support.receipts import BOTTLE, IMAGE, IMAGE_ENV, SIDECAR, answers, judged, put, shown


@pytest.mark.parametrize(
    ("path", "value", "name", "detail"),
    [
        ((BOTTLE, "HostConfig", "NetworkMode"), "host", "network", "network mode host"),
        ((BOTTLE, "HostConfig", "PortBindings"), {"80/tcp": []}, "network", "port 80/tcp is published"),
        ((BOTTLE, "Mounts"), [{"Type": "bind", "Destination": "/x"}], "mounts", "bind at /x"),
        ((BOTTLE, "HostConfig", "Tmpfs"), {"/x": ""}, "mounts", "tmpfs at /x"),
        ((BOTTLE, "HostConfig", "CapAdd"), ["NET_RAW"], "privileges", "CapAdd is ['NET_RAW']"),
        ((BOTTLE, "HostConfig", "SecurityOpt"), ["no-new-privileges", "apparmor=unconfined"], "privileges",
         "SecurityOpt is ['no-new-privileges', 'apparmor=unconfined']"),
        ((BOTTLE, "HostConfig", "PidMode"), "host", "privileges", "PidMode is host"),
        ((BOTTLE, "HostConfig", "UTSMode"), "host", "privileges", "UTSMode is host"),
        ((BOTTLE, "HostConfig", "IpcMode"), "container:x", "privileges", "IpcMode is container:x"),
        ((BOTTLE, "HostConfig", "CgroupnsMode"), "host", "privileges", "CgroupnsMode is host"),
        ((BOTTLE, "HostConfig", "GroupAdd"), ["docker"], "privileges", "GroupAdd is ['docker']"),
        ((BOTTLE, "HostConfig", "RestartPolicy", "Name"), "always", "restart", "the bottle's policy is always"),
        ((SIDECAR, "HostConfig", "ReadonlyRootfs"), False, "sidecar", "its file system is writable"),
        ((SIDECAR, "Mounts"), [{"Type": "bind", "Destination": "/config"}], "sidecar", "bind at /config"),
        ((SIDECAR, "Config", "Env"), ["KEY=x"], "secrets", "docker inspect shows KEY of the sidecar"),
        ((IMAGE, "Config", "Env"), [*IMAGE_ENV, "A=1"], "environment", "A is missing"),
        ((IMAGE, "Config", "Env"), [*IMAGE_ENV[:1], "LANG=C"], "environment", "LANG differs"),
    ],
)  # fmt: skip
def test_what_was_built_is_told(plan: Plan, path: tuple[Any, ...], value: object, name: str, detail: str) -> None:
    seen = shown(plan)
    put(seen, path, value)
    assert [(check.name, check.detail) for check in judged(plan, answers(plan), seen).failed] == [(name, detail)]


def _names(plan: Plan, *names: str) -> set[str]:
    seen = shown(plan)
    seen[SIDECAR]["Config"]["Env"] = [f"{name}=x" for name in names]
    told = [check.detail for check in judged(plan, answers(plan), seen).failed if check.name == "secrets"]
    return {name for name in names if told and f" {name} " in told[0]}


def test_names_of_secrets_are_known_from_others(plan: Plan) -> None:
    secrets = {"API_KEY", "apikey", "GH_TOKEN", "TOKEN2", "DB_PASSWORD", "MYSQL_PWD", "GH_PAT", "AWS_SECRET_ACCESS_KEY"}
    others = {"PATH", "PWD", "OLDPWD", "KEYBOARD", "MAX_THINKING_TOKENS", "TOKENIZERS_PARALLELISM", "MONKEYS"}
    assert _names(plan, *secrets, *others) == secrets
    assert inspect_checks.SECRET.search("CLAUDE_CODE_OAUTH_TOKEN")
