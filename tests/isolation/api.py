"""The test world's stand-in for Anthropic's API, at one address of the battery's machine: `api.py FOLDER`."""

import ssl
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.isolation.places import ANTHROPIC
from tests.world.api import server


def main(folder: Path) -> None:
    """Serve for ever."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(folder / "server.pem", folder / "server.key")
    serving = server.Server((ANTHROPIC, 443), server.Handler)
    serving.socket = tls.wrap_socket(serving.socket, server_side=True, do_handshake_on_connect=False)
    serving.serve_forever()


main(Path(sys.argv[1]))
