"""Git over https, which takes a user and a password. It runs in the git host's container and needs only Python and git.

On stdout: "listening", then each request as a line of JSON.
"""

import base64
import json
import subprocess
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

from tests.world.api import server

HOME = Path("/home/git")
#: lines of `user:password`; whoever gives one of them may read and write every repository
ACCOUNTS = HOME / "accounts"
#: where the certificate and its key are
HERE = Path(__file__).parent


def accounts() -> Iterator[str]:
    """Yield the values of `Authorization` that are let in."""
    for line in ACCOUNTS.read_text().splitlines() if ACCOUNTS.exists() else ():
        yield f"Basic {base64.b64encode(line.encode()).decode()}"


class Handler(server.Handler):
    """One connection, in a thread of its own."""

    def respond(self, content: bytes) -> None:
        """Hand the request to git, if it has an account."""
        given = self.headers.get_all("Authorization", [])
        known = len(given) == 1 and given[0] in accounts()
        status, headers, answer = self.git(content) if known else (401, [("WWW-Authenticate", "Basic")], b"")
        line = {"method": self.command, "path": self.path, "headers": self.headers.items(), "status": status}
        with server.printing:
            print(json.dumps(line), flush=True)
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", str(len(answer)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else answer)

    def git(self, content: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """Run git's own CGI program; return status, headers and body of its answer."""
        path, _, query = self.path.partition("?")
        environ = {
            "GIT_HTTP_EXPORT_ALL": "1", "GIT_PROJECT_ROOT": str(HOME), "HOME": str(HOME), "PATH": "/usr/bin:/bin",
            "REMOTE_ADDR": self.client_address[0], "REMOTE_USER": "git", "REQUEST_METHOD": self.command,
            "PATH_INFO": path, "QUERY_STRING": query, "CONTENT_LENGTH": str(len(content)),
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }  # fmt: skip
        done = subprocess.run(("git", "http-backend"), input=content, stdout=subprocess.PIPE, env=environ, check=False)
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        headers = message_from_bytes(head).items()
        status = dict(headers).get("Status", "200")
        return int(status.split()[0]), [pair for pair in headers if pair[0] != "Status"], body


if __name__ == "__main__":
    server.serve(Handler, HERE)
