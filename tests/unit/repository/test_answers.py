"""Parsing the exporter's output: well-formed output is accepted, anything else is refused."""

import json

import pytest

from claude_bottle.errors import RepositoryError
from claude_bottle.repository import answers
from claude_bottle.repository.answers import Answers, Commit

ONE, TWO = "1" * 40, "2" * 64
HEAD = {"kind": "head", "tip": ONE, "before": TWO}
COMMIT = {"kind": "commit", "oid": ONE, "below": "", "what": "branch x"}


def printed(*records: object) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def test_every_field_is_read() -> None:
    output = printed(
        *(COMMIT, {"kind": "commit", "oid": TWO, "below": ONE, "what": ""}, HEAD),
        *({"kind": "failed", "why": "so"}, {"kind": "nested", "path": "a"}, {"kind": "large", "path": "b\x1b\n\udcff"}),
        *({"kind": "unread", "why": "c"}, {"kind": "special", "path": "d"}),
    )
    assert answers.read(output, whole=True) == Answers(
        *(ONE, TWO, (Commit(ONE, "", "branch x"), Commit(TWO, ONE, ""))),
        *(("so",), ("a",), (r"b\x1b\n\udcff",), ("c",), ("d",)),
    )


def test_the_bottle_may_have_no_commit() -> None:
    read = answers.read(printed({"kind": "head", "tip": "", "before": ""}), whole=True)
    assert (read.tip, read.before) == ("", "")


def test_long_text_is_truncated() -> None:
    read = answers.read(printed(HEAD, {"kind": "large", "path": "x" * 1000}), whole=True)
    assert read.large == ("x" * 200,)


@pytest.mark.parametrize("cut", [b"", b"{", printed(HEAD)[:-1], b"\xff", b"["])
def test_whole_lines_of_truncated_output_count(cut: bytes) -> None:
    read = answers.read(printed(COMMIT) + cut, whole=False)
    assert (read.tip, read.before, [each.oid for each in read.commits]) == (None, "", [ONE])
    with pytest.raises(RepositoryError):
        answers.read(printed(COMMIT) + cut, whole=True)


TRUNCATED = {  # malformed only if the exporter has succeeded
    "nothing": b"",
    "no end": printed(HEAD)[:-1],
    "no head": printed(COMMIT),
    "zeros": bytes(1 << 20),
    "too many lines": printed(HEAD) + printed({"kind": "nested", "path": "x"}) * 50_000,
}
MALFORMED = {
    "two heads": printed(HEAD, HEAD),
    "the old shell format": f"tip {ONE}\nbefore {ONE}\n".encode(),
    "no JSON": b"{\n" + printed(HEAD),
    "an empty line": printed(HEAD) + b"\n",
    "not ASCII": printed(HEAD) + '{"kind": "large", "path": "ü"}\n'.encode(),
    "not UTF-8": printed(HEAD) + b'{"kind": "large", "path": "\xff"}\n',
    "a list": printed(HEAD, []),
    "a string": printed(HEAD, "head"),
    "null": printed(HEAD, None),
    "a number": printed(HEAD, 1),
    "not a number": printed(HEAD) + b"NaN\n",
    "a huge number": printed(HEAD) + b"1" * 10_000 + b"\n",
    "nested too deep": printed(HEAD) + b"[" * 10_000 + b"\n",
    "no kind": printed(HEAD, {"path": "x"}),
    "an unknown kind": printed(HEAD, {"kind": "medium", "path": "x"}),
    "a kind that is a list": printed(HEAD, {"kind": ["large"], "path": "x"}),
    "a field too few": printed({"kind": "head", "tip": ONE}),
    "a field too many": printed(HEAD, {**COMMIT, "more": ""}),
    "a field twice": printed(HEAD) + b'{"kind": "large", "path": "x", "path": "y"}\n',
    "a number for a name": printed({**HEAD, "tip": 1}),
    "null for a name": printed({**HEAD, "before": None}),
    "a ref for a tip": printed({**HEAD, "tip": "HEAD"}),
    "an option for a tip": printed({**HEAD, "tip": "--output=/tmp/x"}),
    "a short name": printed({**HEAD, "tip": "1" * 39}),
    "a name of a length between": printed({**HEAD, "tip": "1" * 50}),
    "upper case": printed({**HEAD, "tip": "A" * 40}),
    "a newline at the end": printed({**HEAD, "tip": f"{ONE}\n"}),
    "other digits": printed({**HEAD, "tip": "\u0661" * 40}),
    "no name of a commit": printed(HEAD, {**COMMIT, "oid": ""}),
    "an option for a commit": printed(HEAD, {**COMMIT, "oid": "--all"}),
    "a path for what is below": printed(HEAD, {**COMMIT, "below": "refs/heads/main"}),
    "a long name": printed(HEAD, {"kind": "large", "path": "x" * 1001}),
    "a long line": printed(HEAD, {"kind": "large", "path": "\x1b" * 4000}),
    "a long gap": printed(HEAD) + b" " * 20_000 + b"{}\n",
}


def refused(output: bytes, *, whole: bool) -> None:
    with pytest.raises(RepositoryError, match=r"^the bottle's answer is malformed: ") as caught:
        answers.read(output, whole=whole)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_output_is_refused(case: str) -> None:
    refused(MALFORMED[case], whole=True)
    refused(MALFORMED[case], whole=False)


@pytest.mark.parametrize("case", TRUNCATED)
def test_truncated_output_is_refused_if_the_exporter_succeeded(case: str) -> None:
    refused(TRUNCATED[case], whole=True)
    answers.read(TRUNCATED[case], whole=False)
