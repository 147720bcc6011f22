"""The variables of a bottle: which names and values a manifest may give them."""

import pytest

from claude_bottle.errors import ManifestError
from claude_bottle.manifest.agent import EnvVar
from tests.support.manifests import Place, bottle_faults


@pytest.mark.parametrize(
    "name",
    [
        *("http_proxy", "HTTPS_PROXY", "Ftp_Proxy", "no_proxy", "ALL_PROXY", "HOME", "NODE_EXTRA_CA_CERTS"),
        *("CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_BOTTLE_X", "CLAUDE_CONFIG_DIR", "DISABLE_AUTOUPDATER"),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
    ],
)
def test_what_the_launcher_sets_is_refused(place: Place, name: str) -> None:
    assert bottle_faults(place, f"env:\n  {name}: x") == [
        f"bottles/default.yaml:2:3: env.{name}: is set by claude-bottle itself"
    ]


@pytest.mark.parametrize(
    "name",
    ["PATH", "LD_PRELOAD", "DYLD_X", "DOCKER_HOST", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "GODEBUG", "TMPDIR", "XDG_X"],
)
def test_a_host_value_must_not_change_the_docker_client(place: Place, name: str) -> None:
    place.write("agents/bottles/default.yaml", f"env: {{{name}: '${{X}}'}}")
    with pytest.raises(ManifestError, match=f"env.{name}: cannot come from the host"):
        place.load(environ={"X": "x"})
    place.write("agents/bottles/default.yaml", f"env: {{{name}: x}}")
    assert place.load().bottle.env == (EnvVar(name, "x"),)
    place.write("agents/bottles/default.yaml", f"env: {{GOOGLE_KEY: '${{{name}}}'}}")
    assert place.load(environ={name: "x"}).bottle.env == (EnvVar("GOOGLE_KEY", source=name),)


@pytest.mark.parametrize("value", ["a${X}", "${X} ", "${X}${Y}", "${}", "${1X}", "${X:-y}", "${X"])
def test_a_literal_is_never_half_a_reference(place: Place, value: str) -> None:
    assert bottle_faults(place, f"env:\n  A: '{value}'") == [
        'bottles/default.yaml:2:6: env.A: "${" only works as a whole value, "${NAME}" with the name of a host variable'
    ]


def test_an_unset_host_variable_is_named(place: Place) -> None:
    assert bottle_faults(place, "env:\n  A: ${SECRET_KEY}") == [
        "bottles/default.yaml:2:6: env.A: SECRET_KEY is not set on the host"
    ]


def test_no_value_of_a_variable_is_shown(place: Place) -> None:
    faults = bottle_faults(place, "env:\n  A: 1337.5\n  B: 'x${hunter2}${'\n  A-B: hunter2\n")
    assert len(faults) == 3
    assert "hunter2" not in str(faults)
    assert "1337" not in str(faults)
    assert "hunter2" not in repr(EnvVar("A", "hunter2"))


def test_a_host_value_that_is_not_utf8_is_refused_by_name(place: Place) -> None:
    place.write("agents/bottles/default.yaml", "env: {KEY: '${SOURCE}'}")
    with pytest.raises(ManifestError, match=r"env.KEY: SOURCE is not UTF-8 text on the host, and docker passes on"):
        place.load(environ={"SOURCE": "secret\udce9"})


def test_a_placeholder_is_a_literal_that_says_so(place: Place) -> None:
    place.write("agents/bottles/default.yaml", "env: {GH_TOKEN: {placeholder: true}, A: x, B: '${X}'}")
    bottle = place.load(environ={"X": "x"}).bottle
    assert bottle.env[0] == EnvVar("GH_TOKEN", "claude-bottle-placeholder", placeholder=True)
    assert [variable.placeholder for variable in bottle.env] == [True, False, False]
    assert bottle.readable == ("B",)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("{}", '1:10: env.A: missing required key "placeholder"'),
        ("{placeholder: false}", "1:24: env.A.placeholder: must be true; leave the variable out otherwise"),
        ('{placeholder: "x"}', "1:24: env.A.placeholder: expected true or false, got a string"),
        (
            "{placeholder: true, value: hunter2}",
            '1:30: unknown key "env.A.value"; known keys: placeholder',
        ),
    ],
)
def test_a_placeholder_is_true_and_nothing_else(place: Place, value: str, fault: str) -> None:
    assert bottle_faults(place, f"env: {{A: {value}}}") == [f"bottles/default.yaml:{fault}"]


def test_a_placeholder_cannot_have_a_name_of_the_launcher(place: Place) -> None:
    assert bottle_faults(place, "env: {CLAUDE_CODE_OAUTH_TOKEN: {placeholder: true}}") == [
        "bottles/default.yaml:1:7: env.CLAUDE_CODE_OAUTH_TOKEN: is set by claude-bottle itself"
    ]


def test_the_token_of_the_api_never_enters_a_bottle(place: Place) -> None:
    place.write("agents/bottles/default.yaml", "env: {KEY: '${CLAUDE_BOTTLE_OAUTH_TOKEN}'}")
    with pytest.raises(ManifestError, match=r"1:12: env.KEY: CLAUDE_BOTTLE_OAUTH_TOKEN never enters a bottle"):
        place.load(environ={"CLAUDE_BOTTLE_OAUTH_TOKEN": "x"})
