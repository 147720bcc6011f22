"""What holds for every test."""

import signal

import pytest

pytest.register_assert_rewrite("tests.support")  # else a golden file that differs shows no difference


def pytest_configure() -> None:
    """Hear the signals that whoever started the tests ignores (nohup, a shell's `&`): children inherit that."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
