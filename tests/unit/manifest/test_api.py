"""What a bottle may do at the API beyond what Claude Code needs."""

import pytest

from claude_bottle.manifest.api import ANY, Api
from tests.support.manifests import Place, bottle_faults

METHOD = "must be a method in capitals, such as GET"


def test_further_paths_have_a_method_or_any(place: Place) -> None:
    text = "api: {paths: [POST /v1/files, /v1/skills/, POST /v1/files], server_side_fetch: true}"
    place.write("agents/bottles/default.yaml", text)
    found = place.load().bottle.api
    assert found == Api((("POST", "/v1/files"), (ANY, "/v1/skills/")), server_side_fetch=True)


@pytest.mark.parametrize("text", ["", "api: {}", "api: {paths: [], server_side_fetch: false}"])
def test_nothing_more_is_the_default(place: Place, text: str) -> None:
    place.write("agents/bottles/default.yaml", text)
    assert place.load().bottle.api == Api()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("api: [/v1/files]", "1:6: api: expected a mapping (key: value), got a list"),
        ("api: {path: []}", '1:7: unknown key "api.path"; did you mean "paths"?'),
        ("api: {paths: /v1/files}", "1:14: api.paths: expected a list, got a string"),
        ("api: {paths: [7]}", "1:15: api.paths: expected a string, got a number (add quotes)"),
        ("api: {server_side_fetch: 1}", "1:26: api.server_side_fetch: expected true or false, got a number"),
        ('api: {server_side_fetch: "true"}', "1:26: api.server_side_fetch: expected true or false, got a string"),
        ("api: {paths: [post /v1/files]}", f"1:15: api.paths: {METHOD}"),
        ("api: {paths: [GET  /v1/files]}", '1:15: api.paths: must begin with "/"'),
        ("api: {paths: [GET v1/files]}", '1:15: api.paths: must begin with "/"'),
        ("api: {paths: [TRACE /v1/files]}", "1:15: api.paths: the credential proxy refuses TRACE"),
        (
            "api: {paths: [v1/files]}",
            '1:15: api.paths: must be a path, or a method and a path, such as "POST /v1/files"',
        ),
        (
            'api: {paths: [""]}',
            '1:15: api.paths: must be a path, or a method and a path, such as "POST /v1/files"',
        ),
        ("api: {paths: [/v1/%2e%2e/]}", '1:15: api.paths: must not contain "%2e"'),
        (
            "api: {paths: [/v1/files POST]}",
            "1:15: api.paths: must not contain spaces, control or invisible characters",
        ),
    ],
)
def test_a_fault_has_its_place(place: Place, text: str, fault: str) -> None:
    assert bottle_faults(place, text) == [f"bottles/default.yaml:{fault}"]
