"""The table of wordings, held to whole sentences as programs have printed them."""

import pytest

from claude_bottle.process import wording
from claude_bottle.process.command import Result
from claude_bottle.process.wording import TABLE, Wording, says
from tests.support.clients import NO_ENGINE, RECORDED

DAEMON = "Error response from daemon: "
CLASH = {wording.SUBNET_TAKEN, wording.MADE_MEANWHILE}
GONE = {wording.ABSENT, wording.NO_TARGET}

SENTENCES: list[tuple[str, str, set[Wording]]] = [
    ("docker 20.10", "Error: No such container: x", GONE),
    ("docker 20.10", "Error: No such network: x", {wording.ABSENT}),
    ("docker 20.10", "Error: No such volume: x", {wording.ABSENT}),
    ("docker 26.1.5", "Error: No such object: x", {wording.ABSENT}),
    ("docker 28.2.2", "Error: No such object: x", {wording.ABSENT}),
    ("docker 28.5.2", "Error: No such object: x", {wording.ABSENT}),
    ("docker 29.7.2", "error: no such object: x", {wording.ABSENT}),
    ("dockerd 20.10.24", f"{DAEMON}No such container: x", GONE),
    ("dockerd 26.1.5", f"{DAEMON}No such container: x", GONE),
    (
        "dockerd 20.10.24",
        f'{DAEMON}conflict: unable to remove repository reference "x:1" (must force) - container 0a1b is using it',
        {wording.IMAGE_IN_USE},
    ),
    (
        "dockerd 20.10.24",
        f"{DAEMON}conflict: unable to delete 2c3d (cannot be forced) - image has dependent child images",
        {wording.IMAGE_IN_USE},
    ),
    ("dockerd 28.5.2", f"{DAEMON}No such container: x", GONE),
    ("dockerd 20.10.24", f"{DAEMON}no such image: x: No such image: x:latest", {wording.ABSENT}),
    ("dockerd 20.10.24", f"{DAEMON}network x not found\nexit status 1", {wording.ABSENT}),
    ("dockerd 26.1.5", f"{DAEMON}network x not found", {wording.ABSENT}),
    ("dockerd 28.5.2", f"{DAEMON}network x not found\nexit status 1", {wording.ABSENT}),
    ("dockerd 29.7.2", f"{DAEMON}network x not found\nexit status 1", {wording.ABSENT}),
    ("dockerd 26.1.5", f"{DAEMON}get x: no such volume", {wording.ABSENT}),
    ("dockerd 28.5.2", f"{DAEMON}get x: no such volume", {wording.ABSENT}),
    ("dockerd 29.7.2", f"{DAEMON}get x: no such volume", {wording.ABSENT}),
    ("dockerd 20.10.24", f"{DAEMON}removal of container x is already in progress", {wording.REMOVAL_UNDER_WAY}),
    ("dockerd 26.1.5", f"{DAEMON}Pool overlaps with other one on this address space", CLASH),
    ("dockerd 28.5.2", f"{DAEMON}invalid pool request: Pool overlaps with other one on this address space", CLASH),
    ("dockerd 29.7.2", f"{DAEMON}invalid pool request: Pool overlaps with other one on this address space", CLASH),
    ("dockerd 20.10.24", f"{DAEMON}cannot create network a (x): conflicts with network b (x): networks have", CLASH),
    ("dockerd 20.10.24", f"{DAEMON}network with name x already exists", {wording.MADE_MEANWHILE}),
    (
        "dockerd 20.10",
        f"{DAEMON}cannot restrict inter-container communication: please ensure that br_netfilter kernel module is",
        {wording.NO_BR_NETFILTER},
    ),
    (
        "runc 1.1.5",
        f"docker: {DAEMON}runc create failed: open /proc/sys/net/ipv6/conf/all/disable_ipv6: no such file or directory",
        {wording.NO_IPV6},
    ),
    ("dockerd 20.10.24", f"docker: {DAEMON}cannot join network of a non running container: x", {wording.NO_TARGET}),
    ("dockerd 20.10.24", f"{DAEMON}Container x is not running", {wording.CONTAINER_ENDED}),
    ("ssh-add 9.2p1", 'Error loading key "(stdin)": invalid format', {wording.KEY_FORMAT}),
    ("git 2.39.5", "fatal: Refusing to create empty bundle.", {wording.EMPTY_BUNDLE}),
    (
        "git 2.39.5",
        "error: cannot lock ref 'refs/heads/x': Unable to create '/x/.git/refs/heads/x.lock': File exists.",
        {wording.LOCKED},
    ),
    ("git 2.39.5", "fatal: Unable to create '/x/.git/shallow.lock': File exists.", {wording.LOCKED}),
    ("git 2.39.5", "error: cannot lock ref 'refs/heads/x': is at a but expected b", {wording.LOCKED}),
    ("git 2.39.5", "fatal: detected dubious ownership in repository at '/x'", {wording.ANOTHERS}),
    ("git 2.35.2", "fatal: unsafe repository ('/x' is owned by someone else)", {wording.ANOTHERS}),
    ("git 2.39.5", "fatal: refusing to fetch into branch 'refs/heads/x' checked out at '/x'", {wording.CHECKED_OUT}),
]
OTHERS = [
    "",
    f"{DAEMON}error while removing network: network x has active endpoints",
    f'{DAEMON}Get "https://registry.example/v2/": dial tcp 198.51.100.1:443: i/o timeout',
    "netlink: Error: Could not process rule: Not supported",
    'Error loading key "(stdin)": error in libcrypto',
    "fatal: couldn't find remote ref refs/heads/landed",
    "bash: line 1: /x: No such file or directory",
]


def meant(text: str) -> set[Wording]:
    return {each for each in TABLE if says(each, text)}


def named(by: str) -> str:
    """Return a case's name: no release of Debian has a docker of version 29."""
    return by.replace("29.7.2", RECORDED)


@pytest.mark.parametrize(("by", "said", "expected"), SENTENCES, ids=[named(by) for by, *_ in SENTENCES])
def test_each_sentence_means_one_thing_only(by: str, said: str, expected: set[Wording]) -> None:
    speaker, _, version = by.partition(" ")
    engines = {wording.ANSWER} if DAEMON in said else set()
    assert meant(f"{said}\n") == expected | engines
    known = [phrase for each in meant(said) for phrase in each.phrases if phrase.text in said.casefold()]
    assert any(phrase.by == speaker and version in phrase.seen for phrase in known)


@pytest.mark.parametrize("said", OTHERS)
def test_other_sentences_mean_nothing(said: str) -> None:
    assert meant(said) - {wording.ANSWER} == set()


@pytest.mark.parametrize("said", NO_ENGINE.values(), ids=NO_ENGINE)
def test_what_clients_say_without_an_engine_is_no_answer(said: str) -> None:
    assert not Result(1, stderr=f"{said}\n").answered


def test_every_phrase_has_been_said() -> None:
    """A typing error in a phrase would go unnoticed."""
    sentences = "\n".join(said for _, said, _ in SENTENCES).casefold()
    assert [phrase.text for each in TABLE for phrase in each.phrases if phrase.text not in sentences] == []
    assert [phrase.text for each in TABLE for phrase in each.phrases if not phrase.seen] == []


def test_what_is_recorded_alone_is_named() -> None:
    """The contract test provokes all others."""
    assert [each for each in TABLE if each.recorded] == [wording.NO_BR_NETFILTER]


def test_the_table_has_every_wording_once() -> None:
    defined = {id(value): value for value in vars(wording).values() if isinstance(value, Wording)}
    assert sorted(each.name for each in TABLE) == sorted(each.name for each in defined.values())


def test_success_is_no_absence() -> None:
    for code in (0, 1):
        assert Result(code, stderr="Error: No such container: x\n").absent == bool(code)
        assert Result(code, stderr="Error: No such container: x\n").answered != bool(code)


@pytest.mark.parametrize(
    ("by", "said", "gist"),
    [
        ("docker", f"docker: {DAEMON}no luck.\nSee 'docker run --help'.\n", "no luck."),
        ("docker", f"docker: {DAEMON}no luck\n\nRun 'docker run --help' for more information\n", "no luck"),
        ("docker", f"pulling\n\nfirst\n  {DAEMON}second\x1b\n", f"first {DAEMON}second\\x1b"),
        ("docker", f"{DAEMON}network x not found\nexit status 1\n", "network x not found"),
        ("docker", "exit status 1\n", ""),
        ("docker", "fatal: no docker\n", "fatal: no docker"),
        ("git", "fatal: no luck\nhint: try again\nhint: or not\n", "no luck"),
        ("git", "error: one\nerror: two\n", "one error: two"),
        ("git", "hint: nothing else\n", ""),
        ("git", "", ""),
    ],
)
def test_the_gist_is_one_line(by: wording.Named, said: str, gist: str) -> None:
    assert wording.gist(by, said) == gist
