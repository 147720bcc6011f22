"""Where a token is kept: each keychain through a stand-in for its program, and the file."""

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from claude_bottle.errors import TokenError
from claude_bottle.host.machine import TOKEN_VARIABLE, Machine
from claude_bottle.session import token_store
from claude_bottle.session.token_store import Place
from tests.support import plans
from tests.support.keychains import Standin

TOKEN, OTHER = f"sk-ant-oat01-{'a_-Z9' * 19}", f"sk-ant-oat01-{'b_-Y8' * 19}"
PROGRAMS = {"keychain": "security", "secret-service": "secret-tool"}


def machine(folder: Path, *standins: Standin, **environ: str) -> Machine:
    """Return a machine whose PATH has nothing but stand-ins, and whose state is in `folder`."""
    path = ":".join(str(each.folder) for each in standins) or "/nowhere"
    return plans.machine(PATH=path, XDG_STATE_HOME=str(folder / "state"), **environ)


def place(here: Machine, name: str) -> Place:
    [found] = [place for place in token_store.places(here) if place.name == name]
    return found


@pytest.fixture(params=["security", "secret-tool"])
def standin(tmp_path: Path, request: pytest.FixtureRequest) -> Standin:
    return Standin.make(tmp_path / "bin", request.param)


@pytest.mark.parametrize("name", ["keychain", "secret-service", "file"])
def test_a_token_is_kept_found_replaced_and_forgotten(tmp_path: Path, name: str) -> None:
    here = machine(tmp_path, *(Standin.make(tmp_path / "bin", PROGRAMS[name]) for _ in range(name in PROGRAMS)))
    with pytest.raises(TokenError, match="login"):
        token_store.resolved(here)
    for token in (TOKEN, OTHER):
        token_store.keep(here, place(here, name), token)
        found = token_store.resolved(here)
        assert (found.environ[TOKEN_VARIABLE], found.token_source) == (token, "login")
    for _ in range(2):
        left = token_store.forget(here)
        assert token_store.recorded(here) is None
    assert left is None
    with pytest.raises(TokenError):
        token_store.resolved(here)
    assert list((tmp_path / "state" / "claude-bottle").iterdir()) == []


def test_a_token_goes_into_a_keychain_over_stdin_alone(tmp_path: Path, standin: Standin) -> None:
    here = machine(tmp_path, standin)
    chosen = token_store.places(here)[0]
    token_store.keep(here, chosen, TOKEN)
    token_store.resolved(here)
    token_store.forget(here)
    assert [TOKEN in call.stdin for call in standin.calls] == [True, False, False, False]
    assert [call for call in standin.calls if TOKEN in " ".join(call.argv)] == []
    assert standin.secret is None
    assert [path for path in (tmp_path / "state").rglob("*") if path.is_file() and TOKEN in path.read_text()] == []


def test_only_a_keychain_whose_program_is_there_is_offered(tmp_path: Path) -> None:
    both = [Standin.make(tmp_path / name, name) for name in ("security", "secret-tool")]
    for number in range(3):
        names = [each.name for each in token_store.places(machine(tmp_path, *both[:number]))]
        assert names == [*["keychain", "secret-service"][:number], "file"]


def test_the_file_is_for_its_user_alone(tmp_path: Path) -> None:
    here = machine(tmp_path)
    token_store.keep(here, place(here, "file"), TOKEN)
    path = tmp_path / "state" / "claude-bottle" / "token"
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == (f"{TOKEN}\n", 0o600)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.chmod(0o640)
    with pytest.raises(TokenError, match="others may read it"):
        token_store.resolved(here)
    token_store.keep(here, place(here, "file"), TOKEN)
    assert token_store.resolved(here).environ[TOKEN_VARIABLE] == TOKEN


def test_a_variable_comes_first_and_no_keychain_is_queried(tmp_path: Path, standin: Standin) -> None:
    here = machine(tmp_path, standin)
    token_store.keep(here, token_store.places(here)[0], TOKEN)
    before = standin.calls
    given = replace(here, environ={**here.environ, TOKEN_VARIABLE: OTHER})
    assert token_store.resolved(given) == token_store.announced(given) == given
    empty = replace(here, environ={**here.environ, TOKEN_VARIABLE: ""})
    assert token_store.announced(empty) == replace(empty, token_source="login")
    assert standin.calls == before
    assert token_store.resolved(empty).environ[TOKEN_VARIABLE] == TOKEN


def test_without_a_login_nothing_is_announced(tmp_path: Path, standin: Standin) -> None:
    here = machine(tmp_path, standin)
    assert (token_store.announced(here), token_store.recorded(here), standin.calls) == (here, None, [])


def test_a_keychain_that_does_not_answer_is_given_up(
    tmp_path: Path, standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = machine(tmp_path, standin)
    token_store.keep(here, token_store.places(here)[0], TOKEN)
    standin.turn("locked")
    monkeypatch.setattr("claude_bottle.session.token_store._SECONDS", 0.2)
    with pytest.raises(TokenError, match=f"no answer within 0 s.*login.*{TOKEN_VARIABLE}"):
        token_store.resolved(here)


def test_a_keychain_that_cannot_be_used_says_why_and_keeps_its_token(tmp_path: Path, standin: Standin) -> None:
    here = machine(tmp_path, standin)
    chosen = token_store.places(here)[0]
    token_store.keep(here, chosen, TOKEN)
    standin.turn("broken")
    for use in (token_store.resolved, token_store.forget, lambda here: token_store.keep(here, chosen, OTHER)):
        with pytest.raises(TokenError, match="Cannot autolaunch D-Bus"):
            use(here)
    standin.turn("broken", on=False)
    assert token_store.resolved(here).environ[TOKEN_VARIABLE] == TOKEN


def test_a_keychain_whose_program_has_gone(tmp_path: Path, standin: Standin) -> None:
    here = machine(tmp_path, standin)
    token_store.keep(here, token_store.places(here)[0], TOKEN)
    with pytest.raises(TokenError, match="is not on PATH"):
        token_store.resolved(machine(tmp_path))


def test_a_token_that_is_gone_is_not_an_empty_one(tmp_path: Path, standin: Standin) -> None:
    here = machine(tmp_path, standin)
    token_store.keep(here, token_store.places(here)[0], TOKEN)
    (standin.folder / "secret").unlink()
    with pytest.raises(TokenError, match="the token is gone from"):
        token_store.resolved(here)
    assert token_store.forget(here)


def test_a_keychain_that_silently_keeps_nothing_is_found_out(tmp_path: Path) -> None:
    standin = Standin.make(tmp_path / "bin", "security")
    here = machine(tmp_path, standin)
    standin.turn("full")
    with pytest.raises(TokenError, match="has not kept the token"):
        token_store.keep(here, token_store.places(here)[0], TOKEN)
    assert token_store.recorded(here) is None


def test_a_token_is_kept_in_one_place_only(tmp_path: Path, standin: Standin) -> None:
    here = machine(tmp_path, standin)
    keychain, file = token_store.places(here)
    token_store.keep(here, keychain, TOKEN)
    token_store.keep(here, file, OTHER)
    assert (standin.secret, token_store.resolved(here).environ[TOKEN_VARIABLE]) == (None, OTHER)
    token_store.keep(here, keychain, TOKEN)
    assert not (tmp_path / "state" / "claude-bottle" / "token").exists()
    assert token_store.resolved(here).environ[TOKEN_VARIABLE] == TOKEN


def test_a_record_of_something_else_is_none(tmp_path: Path) -> None:
    here = machine(tmp_path)
    record = tmp_path / "state" / "claude-bottle" / "login"
    record.parent.mkdir(parents=True)
    for text in ("", "file.txt", "\xff"):
        record.write_text(text)
        assert token_store.recorded(here) is None
