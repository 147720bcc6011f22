"""Write the event log: one JSON object a line on stdout, and remarks for people on stderr."""

import json
import os
import sys
import time

# The technique numbers that a refusal carries, by the scanner that refused.
techniques = {
    "allowlist": "T1071.001",
    "dlp": "T1048",
    "entropy": "T1048",
    "ratelimit": "T1030",
    "scheme": "T1071",
    "ssrf": "T1046",
}


def event(level: str, name: str, message: str, **fields: object) -> None:
    """Write one event; the fields keep their order between the name and the time."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line = {"level": level, "component": "pipelock", "event": name, **fields, "time": now, "message": message}
    data = (json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n").encode(errors="replace")
    while data:
        data = data[os.write(1, data) :]


def remark(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
