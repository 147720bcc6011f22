"""What holds for every test."""

import signal


def pytest_configure() -> None:
    """Hear the signals that whoever started the tests ignores (nohup, a shell's `&`): children inherit that."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
