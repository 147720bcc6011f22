"""What takes minutes, beside the other tests."""

import pytest

from tests.support.sessions import Bench

# Claude Code itself gives a silent stream up after five minutes, and asks again: that is not what is tested here.
PATIENT = {
    "API_FORCE_IDLE_TIMEOUT": "0",
    "CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS": "900000",
    "CLAUDE_STREAM_IDLE_TIMEOUT_MS": "900000",
}


@pytest.mark.long
def test_stream_survives_six_minutes_without_a_byte(bench: Bench) -> None:
    bench.write({"env": PATIENT})
    assert bench.ask("SILENT: 360\nSAY: still here") == "still here\n"
    assert len([request for request in bench.world.requests(bench.token) if request.runs]) == 1
