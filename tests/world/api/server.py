"""A stand-in for Anthropic's API, enough to drive the real Claude Code. It runs in a container and needs only Python.

Lines of the prompt, in order, say what it does; without one it answers that it is a stand-in:

    RUN: <command>             have Claude Code run a command with its Bash tool; the outputs are in the last answer
    TOOL: <name> <JSON>        have Claude Code use this tool with this input
    SAY: <text>                answer with this text
    BIG: <MB>                  answer with a text of this size, in 10^6 bytes
    SILENT: <seconds>          send nothing on the open stream for so long
    HOLD: <name>               send nothing until somebody makes the file /tmp/released-<name>
    FAIL: <status> [<seconds>] answer the first such request with this status and this `retry-after`, the next as usual

A search of the web finds one page. On stdout: "listening", then each request as a line of JSON.
"""

import hashlib
import itertools
import json
import re
import socketserver
import ssl
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Block = dict[str, Any]
Event = tuple[str, Block]

GREETING = """I am a stand-in for Anthropic's API, not Claude. You wrote: {}

Write `RUN: ` and a command, and I have Claude Code run it here, in the bottle."""
HOLD_SECONDS = 600
LOGGED_CHARACTERS = 60_000
PIECE = 1 << 16  # characters of a text in one event
DIRECTIVE = re.compile(r"^\s*(RUN|TOOL|SAY|BIG|SILENT|HOLD|FAIL): ?(.*)$", re.MULTILINE)
#: what Claude Code wants to know at a start, and before it fetches a page itself
FACTS: dict[str, Block] = {
    "/api/claude_code/policy_limits": {"restrictions": {}},
    "/api/hello": {},
    "/api/web/domain_info": {"can_fetch": True},
    "/v1/messages/count_tokens": {"input_tokens": 1},
}
#: what Claude Code itself adds to what the user wrote
ADDED = re.compile(r"<(system-reminder|command-[a-z]+|local-command-[a-z]+)>.*?</\1>", re.DOTALL)
HERE = Path(__file__).parent
printing = threading.Lock()
connections = itertools.count(1)
failed: set[tuple[str | None, str, int, int]] = set()
"""Which `FAIL` has been answered: the token, the prompt, the results so far, the `FAIL`'s number among the waits."""


@dataclass(frozen=True)
class Turn:
    """What a request to /v1/messages asks: the user's last text, and the results of the tools used since."""

    prompt: str = ""
    results: tuple[str, ...] = ()
    runs: bool = False
    """Whether Claude Code offers its Bash tool: its small requests on the side (a title) do not."""


def read_turn(body: Block) -> Turn:
    """Find the user's last words among the reminders and tool results of a conversation."""
    prompt, results = "", []
    for message in body.get("messages", ()):
        if message.get("role") != "user":
            continue
        content = message.get("content")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
        results += [plain(block.get("content")) for block in blocks if block.get("type") == "tool_result"]
        texts = [ADDED.sub("", block.get("text", "")).strip() for block in blocks if block.get("type") == "text"]
        said = "\n".join(filter(None, texts))
        if said:
            prompt, results = said, []
    return Turn(prompt, tuple(results), any(tool.get("name") == "Bash" for tool in body.get("tools", ())))


def read(content: bytes) -> tuple[Block, Turn]:
    """Read a request's body; one that cannot be read is nothing, and written down all the same."""
    try:
        body = json.loads(content)
        return body, read_turn(body)
    except (AttributeError, RecursionError, TypeError, ValueError):
        return {}, Turn()


def plain(content: Any) -> str:
    """Return the text of a tool result, which is a string or a list of blocks."""
    return content if isinstance(content, str) else "\n".join(block.get("text", "") for block in content or ())


def answer(turn: Turn) -> tuple[tuple[tuple[str, str], ...], tuple[Block, ...]]:
    """Return the waits (kind, argument) to make first, and the blocks of content to answer with."""
    if not turn.runs:
        return (), (text("Stand-in"),)
    waits: list[tuple[str, str]] = []
    said: list[Block] = []
    done = 0
    for kind, argument in DIRECTIVE.findall(turn.prompt):
        if kind in ("RUN", "TOOL"):
            if done == len(turn.results):
                return tuple(waits), (*said, bash(argument) if kind == "RUN" else tool(argument))
            done, waits, said = done + 1, [], []
        elif kind in ("SAY", "BIG"):
            said.append(text(argument if kind == "SAY" else "x" * int(float(argument) * 1e6)))
        else:
            waits.append((kind, argument))
    said += [text("\n".join(turn.results))] if turn.results else []
    return tuple(waits), tuple(said) or (text(GREETING.format(turn.prompt)),)


def text(words: str) -> Block:
    """Return a block of text, which may not be empty."""
    return {"type": "text", "text": words or "(nothing)"}


def bash(command: str) -> Block:
    """Return a block that makes Claude Code run a command."""
    given = {"command": command, "description": "Run what the prompt names", "timeout": HOLD_SECONDS * 1000}
    return tool(f"Bash {json.dumps(given)}")


def tool(words: str) -> Block:
    """Return a block that makes Claude Code use a tool: its name, and its input in JSON."""
    name, _, given = words.partition(" ")
    return {"type": "tool_use", "id": f"toolu_{time.time_ns()}", "name": name, "input": json.loads(given or "{}")}


def found() -> tuple[Block, ...]:
    """Return the blocks of a search of the web, which the API itself makes."""
    number = f"srvtoolu_{time.time_ns()}"
    page = {"type": "web_search_result", "url": "https://extra.test/", "title": "Found", "encrypted_content": "eA=="}
    return (
        {"type": "server_tool_use", "id": number, "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": number, "content": [page | {"page_age": None}]},
        text("Found"),
    )


def searches(body: Block) -> bool:
    """Say whether a request offers the API's own search: Claude Code makes one for each use of WebSearch."""
    return any(str(tool.get("type")).startswith("web_search_") for tool in body.get("tools", ()))


def wait(kind: str, argument: str) -> None:
    """Make one wait."""
    if kind == "SILENT":
        time.sleep(float(argument))
    if kind != "HOLD":
        return
    released, deadline = Path("/tmp", f"released-{argument.strip()}"), time.monotonic() + HOLD_SECONDS
    while not released.exists() and time.monotonic() < deadline:
        time.sleep(0.05)


def message(model: str, blocks: tuple[Block, ...]) -> Block:
    """Return a whole message, as an answer that is not streamed has it."""
    reason = "tool_use" if any(block["type"] == "tool_use" for block in blocks) else "end_turn"
    usage = {"input_tokens": 1, "output_tokens": 1, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    head = {"id": f"msg_{time.time_ns()}", "type": "message", "role": "assistant", "model": model}
    return head | {"content": list(blocks), "stop_reason": reason, "stop_sequence": None, "usage": usage}


def events(whole: Block) -> Iterator[Event]:
    """Yield the events of a streamed message; the waits belong behind the ping."""
    yield "message_start", {"message": whole | {"content": [], "stop_reason": None}}
    yield "ping", {}
    for index, block in enumerate(whole["content"]):
        empty, deltas = parts(block)
        yield "content_block_start", {"index": index, "content_block": empty}
        for delta in deltas:
            yield "content_block_delta", {"index": index, "delta": delta}
        yield "content_block_stop", {"index": index}
    stop = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield "message_delta", {"delta": stop, "usage": whole["usage"]}
    yield "message_stop", {}


def parts(block: Block) -> tuple[Block, Iterable[Block]]:
    """Return what a streamed block starts as, and what is added to it."""
    if block["type"] == "text":
        words = block["text"]
        pieces = (words[at : at + PIECE] for at in range(0, len(words), PIECE))
        return block | {"text": ""}, ({"type": "text_delta", "text": piece} for piece in pieces)
    if "input" in block:
        return block | {"input": {}}, ({"type": "input_json_delta", "partial_json": json.dumps(block["input"])},)
    return block, ()


class Handler(BaseHTTPRequestHandler):
    """One connection, in a thread of its own."""

    protocol_version = "HTTP/1.1"
    timeout = HOLD_SECONDS

    def setup(self) -> None:
        """Number the connection, so that its requests can be told from another's."""
        super().setup()
        self.number = next(connections)

    def do_GET(self) -> None:
        """Answer a request of any method."""
        self.respond(self.content())

    do_DELETE = do_HEAD = do_OPTIONS = do_PATCH = do_POST = do_PUT = do_GET  # noqa: N815

    def respond(self, content: bytes) -> None:
        """Answer a conversation, and what Claude Code wants to know; nothing else matters."""
        path = self.path.partition("?")[0]
        if (self.command, path) != ("POST", "/v1/messages"):
            self.log_turn(Turn(), content)
            self.reply(200 if path in FACTS else 404, FACTS.get(path, {}))
            return
        body, turn = read(content)
        self.log_turn(turn, content)
        waits, blocks = ((), found()) if searches(body) else answer(turn)
        if self.fail(turn, waits):
            return
        whole = message(body.get("model", ""), blocks)
        if body.get("stream"):
            self.stream(waits, whole)
            return
        for kind, argument in waits:
            wait(kind, argument)
        self.reply(200, whole)

    def content(self) -> bytes:
        """Read the request's body to its end; after one whose framing cannot be read the connection is closed."""
        try:
            return self.framed()
        except ValueError:
            self.close_connection = True
            return b""

    def framed(self) -> bytes:
        """Read as many bytes as the headers say."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # the trailers
        return b"".join(pieces)

    def fail(self, turn: Turn, waits: tuple[tuple[str, str], ...]) -> bool:
        """Answer the first `FAIL` that was not answered yet; return whether there is one."""
        for number, (kind, argument) in enumerate(waits):
            key = (self.headers["authorization"], turn.prompt, len(turn.results), number)
            if kind == "FAIL" and key not in failed:
                failed.add(key)
                status, _, seconds = argument.strip().partition(" ")
                error = {"type": "rate_limit_error" if status == "429" else "api_error", "message": "as told"}
                self.reply(int(status), {"type": "error", "error": error}, seconds)
                return True
        return False

    def reply(self, status: int, answer: Block, retry_after: str = "") -> None:
        """Send a whole answer."""
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else content)

    def stream(self, waits: tuple[tuple[str, str], ...], whole: Block) -> None:
        """Send an answer as server-sent events, on a connection that stays open for the next request."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for name, data in events(whole):
            piece = f"event: {name}\ndata: {json.dumps({'type': name} | data)}\n\n".encode()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            while name == "ping" and waits:
                wait(*waits[0])
                waits = waits[1:]
        self.wfile.write(b"0\r\n\r\n")

    def log_turn(self, turn: Turn, content: bytes) -> None:
        """Write the request down for the tests."""
        line = {
            "time": time.time(), "client": self.client_address[0], "connection": self.number,
            "host": self.headers.get("Host", ""), "method": self.command, "path": self.path,
            "token": self.headers.get("Authorization", "").removeprefix("Bearer "), "headers": self.headers.items(),
            "size": len(content), "sha256": hashlib.sha256(content).hexdigest(),
            "prompt": turn.prompt[:LOGGED_CHARACTERS],
            "results": [result[:LOGGED_CHARACTERS] for result in turn.results], "runs": turn.runs,
        }  # fmt: skip
        with printing:
            print(json.dumps(line), flush=True)

    def log_message(self, *_: object) -> None:
        """Keep the server's own lines out of the log."""


class Server(ThreadingHTTPServer):
    """TLS whose handshake happens in the connection's own thread: a client that says nothing holds nobody up."""

    daemon_threads = True
    request_queue_size = 128

    def server_bind(self) -> None:
        """Bind without a query for this machine's own name, which is slow where no name server answers."""
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, *_: object) -> None:
        """Say in one line why a connection ended early, which is often just its client's end."""
        print(repr(sys.exc_info()[1]), file=sys.stderr, flush=True)


def serve(handler: type[BaseHTTPRequestHandler], folder: Path) -> None:
    """Serve on port 443 for ever, with the certificate and the key in `folder`."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(folder / "server.pem", folder / "server.key")
    server = Server(("", 443), handler)
    server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print("listening", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    serve(Handler, HERE)
