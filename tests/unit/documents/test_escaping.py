"""Text made fit for a terminal."""

import pytest

from claude_bottle.documents.escaping import harmless


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
    assert harmless(text) == shown
