"""What takes minutes, beside the other tests."""

import pytest

from tests.engine.sessions import Bench


@pytest.mark.long
def test_stream_survives_six_minutes_without_a_byte(bench: Bench) -> None:
    assert bench.ask("SILENT: 360\nSAY: still here") == "still here\n"
