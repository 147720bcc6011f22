"""Serve the files below /srv/files over TLS, in a container that has nothing but Python.

Below /signed/ they are for those alone who have the right credential.
"""

import io
import ssl
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import BinaryIO


class Handler(SimpleHTTPRequestHandler):
    """Connections stay open, as a registry's do."""

    protocol_version = "HTTP/1.1"

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        """Begin the answer to a request."""
        if self.path.startswith("/signed/"):
            if self.headers.get_all("X-Word") != ["made-up"]:
                self.send_error(401)
                return None
            self.path = self.path.removeprefix("/signed")
        return super().send_head()


if __name__ == "__main__":
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain("/srv/server.pem", "/srv/server.key")
    server = ThreadingHTTPServer(("", 443), partial(Handler, directory="/srv/files"))
    server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print("listening", flush=True)
    server.serve_forever()
