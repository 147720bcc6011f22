"""Serve the files below /srv/files over TLS, in a container that has nothing but Python."""

import ssl
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer


class Handler(SimpleHTTPRequestHandler):
    """Connections stay open, as a registry's do."""

    protocol_version = "HTTP/1.1"


if __name__ == "__main__":
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain("/srv/server.pem", "/srv/server.key")
    server = ThreadingHTTPServer(("", 443), partial(Handler, directory="/srv/files"))
    server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print("listening", flush=True)
    server.serve_forever()
