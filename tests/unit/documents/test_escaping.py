"""Text made fit for a terminal."""

import os
import subprocess

import pytest

from claude_bottle.documents.escaping import escape_control_chars, from_utf8, is_utf8, quoted, to_utf8


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Grüße, 世界　🐚 ❤️", "Grüße, 世界　🐚 ❤️"),
        ("a\x1b[31mb\x9bc\x7f", r"a\x1b[31mb\x9bc\x7f"),
        ("one\ntwo\r\tthree\u2028four", r"one\ntwo\r\tthree\u2028four"),
        ("\u202egnp.exe\u2066\u200b\ufeff", r"\u202egnp.exe\u2066\u200b\ufeff"),
        ("a\u3164b\u2800c\u00add\U000e0041", r"a\u3164b\u2800c\xadd\U000e0041"),
        ("half \udc80", r"half \udc80"),
    ],
)
def test_nothing_that_a_terminal_obeys_or_hides_is_left(text: str, shown: str) -> None:
    assert escape_control_chars(text) == shown


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        (b"plain", "plain"),
        (b"it's $HOME", "'it'\"'\"'s $HOME'"),
        ("Grüße".encode(), "'Grüße'"),
        (b"lat\xe9", r"$'lat\xe9'"),
        (b"\xe9a1 it's \\ $HOME `x`", r"$'\xe9a1 it\'s \\ $HOME `x`'"),
        (b"one\ntwo\r\t\x1b[0m\x7f", r"$'one\ntwo\r\t\x1b[0m\x7f'"),
        ("\u202e\u009b\u200b\U000e0041ü".encode(), r"$'\xe2\x80\xae\xc2\x9b\xe2\x80\x8b\xf3\xa0\x81\x81ü'"),
    ],
)
def test_a_quoted_word_can_be_pasted_into_a_shell(word: bytes, shown: str) -> None:
    assert quoted(os.fsdecode(word)) == shown
    for locale in ("C", "C.UTF-8"):
        argv, env = ("bash", "-c", f"printf %s {shown}".encode()), {**os.environ, "LC_ALL": locale}
        done = subprocess.run(argv, env=env, capture_output=True, check=True)
        assert done.stdout == word


def test_what_docker_can_carry_is_utf8() -> None:
    assert is_utf8("Grüße 🐚\x1b")
    assert not is_utf8("lat\udce9")


@pytest.mark.parametrize("text", ["", "/a b/Grüße 🐚", "100%", "%FF%25", "lat\udce9\udc80\udcff%"])
def test_utf8_leads_back_to_what_was_none(text: str) -> None:
    assert from_utf8(to_utf8(text).encode().decode()) == text
    assert ("%" in text or not is_utf8(text)) == (to_utf8(text) != text)
