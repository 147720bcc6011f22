"""What the tests of work on its way back share: what must have landed, and what stands in its way."""

import stat

import pytest

from claude_bottle.errors import RepositoryError
from claude_bottle.repository import fetch
from claude_bottle.repository.fetch import Bottle
from tests.support.repos import BRANCH, Ground, Repo


def landed(ground: Ground, before: dict[str, tuple[int, bytes]], *branches: str) -> None:
    """Hold that nothing but objects and these branches is new in the user's repository, and nothing has changed."""
    after = ground.user.snapshot()
    assert {name: after[name] for name in before} == before
    new = {name for name in after.keys() - before.keys() if not stat.S_ISDIR(after[name][0])}
    refs = {f".git/{kind}heads/{branch}" for branch in branches for kind in ("refs/", "logs/refs/")}
    assert {name for name in new if not name.startswith(".git/objects/")} == refs


def partly(bottle: Bottle, *, last: bool = False, tags: bool = False) -> tuple[str, str]:
    """Fetch what does not come whole; return what is shown, and the error."""
    shown = list[str]()
    with pytest.raises(RepositoryError) as caught:
        fetch.fetch(bottle, shown.append, last=last, tags=tags)
    assert len(str(caught.value).splitlines()) == 1
    return "".join(shown), str(caught.value)


def nested(ground: Ground, *names: str) -> None:
    for name in names:
        inner = Repo(ground.genie.path / name, ground.genie.env)
        inner.path.mkdir(parents=True, exist_ok=True)
        inner.git("init", "--quiet")
        (inner.path / "file").write_text(name)


def names(ground: Ground, branch: str = BRANCH) -> set[str]:
    return set(ground.user.git("ls-tree", "-r", "-z", "--name-only", branch).split("\0"))


def fill_objects(ground: Ground) -> None:
    for number in range(256):
        path = ground.genie.path / ".git" / "objects" / f"{number:02x}"
        if not path.exists():
            path.touch()


def require_filter(ground: Ground) -> None:
    ground.genie.git("config", "filter.x.clean", "false")
    ground.genie.git("config", "filter.x.required", "true")
    (ground.genie.path / ".gitattributes").write_text("left filter=x\n")


def break_settings_of_the_repository(ground: Ground) -> None:
    ground.genie.git("config", "core.autocrlf", "maybe")


def crowd(ground: Ground) -> None:
    """Have the bottle refuse to run anything until it was made room in."""
    docker, room = ground.folder / "bin" / "docker", ground.folder / "room"
    docker.write_text(
        f"""#!/bin/bash
[ "$1" = version ] && echo 28.2.2 20.10.24 && exit
[ "$1" = inspect ] && echo "true 64" && exit
[ "$1" = update ] && echo "$@" > {room} && exit
[ -e {room} ] || {{ echo "cannot fork" >&2; exit 126; }}
[[ "$*" = *"kill -STOP"* ]] && exit
{docker.read_text().removeprefix("#!/bin/bash")}"""
    )
