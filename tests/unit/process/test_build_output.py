"""Where a build is, and what it has made, by what both of docker's builders print."""

import pytest

from claude_bottle.process.build_output import BuildOutput

CLASSIC = b"""\
Sending build context to Docker daemon  2.048kB\r\r
Step 1/5 : FROM debian AS one
 ---> db92d0b55986
Step 2/5 : LABEL x=y
 ---> Using cache
 ---> 7c3a5be9ea89
Step 3/5 : RUN echo one > /one
 ---> Running in bf482f99f493
\x1b[91mwarning: no \x1b[0m\x1b[91mluck
\x1b[0mRemoving intermediate container bf482f99f493
 ---> 9c78ded934b6
Step 4/5 : RUN echo two
 ---> Running in 48ac5a30b6f7
"""
BUILDKIT = b"""\
#1 [internal] load build definition from Dockerfile
#1 sha256:51497df3bec2fb645eb8e567bf923e69bf00bf2650d0d060e6474a3aa2f7157a
#1 DONE 0.0s

#4 [one 1/3] FROM docker.io/library/debian
#5 [one 2/3] RUN echo one > /one
#5 1.386 Step 9/9 : RUN forged
"""


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_the_classic_builders_words(size: int) -> None:
    made: list[tuple[str, str]] = []
    output = BuildOutput(lambda kind, one: made.append((kind, one)))
    for at in range(0, len(CLASSIC), size):
        output.read(CLASSIC[at : at + size])
    assert output.step == "step 4/5, RUN echo two"
    assert made == [  # what comes from the cache, or is in FROM, was made by another
        ("container", "bf482f99f493"),
        ("image", "9c78ded934b6"),
        ("container", "48ac5a30b6f7"),
    ]


def test_buildkits_words() -> None:
    made: list[tuple[str, str]] = []
    output = BuildOutput(lambda kind, one: made.append((kind, one)))
    steps = []
    for line in BUILDKIT.splitlines(keepends=True):
        output.read(line)
        steps.append(output.step)
    first = "load build definition from Dockerfile"
    from_one, run_one = "step one 1/3, FROM docker.io/library/debian", "step one 2/3, RUN echo one > /one"
    assert steps == [first, first, first, first, from_one, run_one, run_one]
    assert made == []


def test_a_pull_is_at_its_last_line() -> None:
    output = BuildOutput()
    output.read(b"1.0: Pulling from library/debian\n0a1b2c: Download complete\n\nStatus: Down")
    assert output.step == "0a1b2c: Download complete"


def test_a_line_without_end_is_not_kept() -> None:
    output = BuildOutput()
    for _ in range(100):
        output.read(b"x" * 1000)
    output.read(b"\nStep 1/2 : " + b"y" * 10_000 + b"\n")
    assert output.step == f"step 1/2, {'y' * (4096 - 11)}"
