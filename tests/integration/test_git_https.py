"""Git over https: the test world's git host takes and writes down what a session sends it."""

import base64

from tests.support.sessions import Bench
from tests.world import git


def test_push_over_https_needs_an_account_and_arrives_with_it(bench: Bench) -> None:
    git.repository(bench.name)
    ada = {"name": "Ada", "email": "ada@example.org"}  # this machine's user may have no identity
    bench.write({"egress": {"allow": [git.HOST]}, "git": ada})
    url, word = f"{git.HOST}/{bench.name}.git", git.account()
    answer = bench.ask(
        f"RUN: GIT_TERMINAL_PROMPT=0 git clone -q https://{url} none 2>&1 | grep -c 'could not read Username'\n"
        f"RUN: git clone -q https://x-access-token:{word}@{url} one && cd one && head -c 3000000 /dev/urandom > big"
        " && git add big && git commit -qm https && git push -q && git status -sb | head -1"
    )
    assert answer.split("\n") == ["1", "## main...origin/main", ""]
    assert git.commits(bench.name)[0].endswith("https")
    seen = git.requests(bench.name)
    assert (seen[0].status, seen[0].header("Authorization")) == (401, ())
    pushed = [request for request in seen if request.method == "POST" and request.path.endswith("/git-receive-pack")]
    right = base64.b64encode(f"x-access-token:{word}".encode()).decode()
    assert {(request.status, request.header("authorization")) for request in pushed} == {(200, (f"Basic {right}",))}
    assert ("Transfer-Encoding", "chunked") in pushed[-1].headers  # as git sends what is big
