"""Which clients ask a host, by what signed its certificate: in a container of the base image, without a network.

`trusting.py KIND=NAME=CONFIGURATION...`, each an openssl configuration in base64 with the sections [authority] and
[leaf]. Prints, by kind and name, the clients whose request has arrived at the host.
"""

import base64
import http.server
import json
import os
import ssl
import subprocess
import sys
import threading
from pathlib import Path

KEY = ("-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc")
PYTHON = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1])"
CLIENTS = {
    "curl": ("/usr/bin/curl", "--silent"),
    "git": ("/usr/bin/git", "ls-remote"),
    "python": ("/usr/bin/python3", "-I", "-c", PYTHON),
}


def openssl(*words: str) -> None:
    """Run openssl with the configuration at hand."""
    subprocess.run(("openssl", words[0], "-config", "openssl.cnf", *words[1:]), check=True, capture_output=True)


def make(folder: Path, configuration: bytes) -> None:
    """Make an authority and a leaf, as the credential proxy does, and stay in their folder."""
    folder.mkdir()
    os.chdir(folder)
    Path("openssl.cnf").write_bytes(configuration)
    Path("index.txt").touch()
    sign = ("ca", "-batch", "-notext", "-days", "2", "-keyfile", "authority.key")
    openssl("req", *KEY, "-subj", "/CN=authority", "-keyout", "authority.key", "-out", "authority.csr")
    openssl(*sign, "-extensions", "authority", "-selfsign", "-in", "authority.csr", "-out", "authority.pem")
    openssl("req", *KEY, "-subj", "/CN=leaf", "-keyout", "leaf.key", "-out", "leaf.csr")
    openssl(*sign, "-extensions", "leaf", "-cert", "authority.pem", "-in", "leaf.csr", "-out", "leaf.pem")


def asked(name: str) -> list[str]:
    """Serve the leaf in this folder, have each client ask `name`, and return those whose request arrives."""
    arrived = set()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            arrived.add(self.path.split("/")[1].partition("?")[0])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain("leaf.pem", "leaf.key")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    trusted = str(Path("authority.pem").resolve())
    env = dict.fromkeys(("CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "SSL_CERT_FILE"), trusted)
    for client, argv in CLIENTS.items():
        # Python's -I takes no variable of Python's own, and this is OpenSSL's.
        url = f"https://{name}:{server.server_port}/{client}"
        subprocess.run((*argv, url), check=False, env=env, capture_output=True)
    server.shutdown()
    return sorted(arrived)


def main() -> None:
    """Try each."""
    found: dict[str, dict[str, list[str]]] = {}
    for number, word in enumerate(sys.argv[1:]):
        kind, name, configuration = word.split("=", 2)
        make(Path("/tmp", str(number)), base64.b64decode(configuration))
        found.setdefault(kind, {})[name] = asked(name)
    print(json.dumps(found))


main()
