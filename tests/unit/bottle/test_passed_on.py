"""Which of the user's variables go into a bottle; what its image makes of them is tested in real bottles."""

from pathlib import Path

import pytest

from claude_bottle.bottle import passed_on
from claude_bottle.bottle.plan import Run
from tests.support import plans

USUAL = {"TERM": "xterm", "COLORTERM": "truecolor", "TERM_PROGRAM": "tmux", "NO_COLOR": "1", "TZ": "UTC"}


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({}, ()),
        ({**USUAL, "FORCE_COLOR": "0"}, passed_on.NAMES),
        ({"TERM": "xterm", "NO_COLOR": "", "TZ": ""}, ("TERM",)),
        ({"LANG": "de_DE.UTF-8", "LC_ALL": "de_DE.UTF-8", "LC_CTYPE": "C", "LANGUAGE": "de"}, ()),
    ],
)
def test_what_is_set_is_passed_on_and_no_locale(environ: dict[str, str], names: tuple[str, ...]) -> None:
    assert passed_on.names(environ) == names


def test_what_a_manifest_sets_is_its_own(tmp_path: Path) -> None:
    bottle = 'env: {TERM: dumb, NO_COLOR: "0", TZ: "${ZONE}"}\n'
    environ = USUAL | {"ZONE": "Asia/Tokyo"}
    made = plans.plan(plans.manifests(tmp_path, bottle), Run(terminal=True), egress=None, name="demo", **environ)
    assert made.passed_on == ("COLORTERM", "TERM_PROGRAM")
    assert made.env_names == ("COLORTERM", "TERM_PROGRAM", "TZ")
