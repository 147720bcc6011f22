"""The test of what was built and installed."""

import unittest

import thing


class Test(unittest.TestCase):
    """The word."""

    def test_word(self) -> None:
        """Check that the dependency makes it."""
        assert thing.word() == "&lt;built&gt;"
