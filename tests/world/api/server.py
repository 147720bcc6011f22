"""A stand-in for Anthropic's API, enough to drive the real Claude Code. It runs in a container and needs only Python.

Lines of the prompt, in order, say what it does; without one it answers that it is a stand-in:

    RUN: <command>     have Claude Code run a command with its Bash tool; the outputs are in the last answer
    SAY: <text>        answer with this text
    SILENT: <seconds>  send nothing on the open stream for so long
    HOLD: <name>       send nothing until somebody makes the file /tmp/released-<name>

On stdout: "listening", then each request as a line of JSON.
"""

import json
import re
import ssl
import sys
import threading
import time
from collections.abc import Iterator
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
DIRECTIVE = re.compile(r"^\s*(RUN|SAY|SILENT|HOLD): ?(.*)$", re.MULTILINE)
#: what Claude Code itself adds to what the user wrote
ADDED = re.compile(r"<(system-reminder|command-[a-z]+|local-command-[a-z]+)>.*?</\1>", re.DOTALL)
HERE = Path(__file__).parent
printing = threading.Lock()


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
        if kind == "RUN":
            if done == len(turn.results):
                return tuple(waits), (*said, bash(argument))
            done, waits, said = done + 1, [], []
        elif kind == "SAY":
            said.append(text(argument))
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
    return {"type": "tool_use", "id": f"toolu_{time.time_ns()}", "name": "Bash", "input": given}


def wait(kind: str, argument: str) -> None:
    """Make one wait."""
    if kind == "SILENT":
        time.sleep(float(argument))
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
    """Yield the events of a streamed message; the waits belong behind the first."""
    yield "message_start", {"message": whole | {"content": [], "stop_reason": None}}
    for index, block in enumerate(whole["content"]):
        if block["type"] == "text":
            empty, delta = block | {"text": ""}, {"type": "text_delta", "text": block["text"]}
        else:
            empty, delta = (
                block | {"input": {}},
                {"type": "input_json_delta", "partial_json": json.dumps(block["input"])},
            )
        yield "content_block_start", {"index": index, "content_block": empty}
        yield "content_block_delta", {"index": index, "delta": delta}
        yield "content_block_stop", {"index": index}
    yield (
        "message_delta",
        {"delta": {"stop_reason": whole["stop_reason"], "stop_sequence": None}, "usage": whole["usage"]},
    )
    yield "message_stop", {}


class Handler(BaseHTTPRequestHandler):
    """One connection, in a thread of its own."""

    protocol_version = "HTTP/1.1"
    timeout = HOLD_SECONDS

    def do_HEAD(self) -> None:
        """Answer the check that Claude Code makes at start."""
        self.log_turn(Turn())
        self.reply(200 if self.path == "/api/hello" else 404, b"")

    def do_GET(self) -> None:
        """Answer what Claude Code does well without."""
        self.do_HEAD()

    def do_POST(self) -> None:
        """Answer a conversation; nothing else that is posted matters."""
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.partition("?")[0] != "/v1/messages":
            self.log_turn(Turn())
            self.reply(404, b"{}")
            return
        body = json.loads(content)
        turn = read_turn(body)
        self.log_turn(turn)
        waits, blocks = answer(turn)
        whole = message(body.get("model", ""), blocks)
        if body.get("stream"):
            self.stream(waits, whole)
            return
        for kind, argument in waits:
            wait(kind, argument)
        self.reply(200, json.dumps(whole).encode())

    def reply(self, status: int, content: bytes) -> None:
        """Send a whole answer."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def stream(self, waits: tuple[tuple[str, str], ...], whole: Block) -> None:
        """Send an answer as server-sent events, ended by the end of the connection."""
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for name, data in events(whole):
            self.wfile.write(f"event: {name}\ndata: {json.dumps({'type': name} | data)}\n\n".encode())
            while name == "message_start" and waits:
                wait(*waits[0])
                waits = waits[1:]

    def log_turn(self, turn: Turn) -> None:
        """Write the request down for the tests."""
        line = {
            "time": time.time(), "client": self.client_address[0], "host": self.headers.get("Host", ""),
            "method": self.command, "path": self.path,
            "token": self.headers.get("Authorization", "").removeprefix("Bearer "), "prompt": turn.prompt,
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

    def handle_error(self, *_: object) -> None:
        """Say in one line why a connection ended early, which is often just its client's end."""
        print(repr(sys.exc_info()[1]), file=sys.stderr, flush=True)


def main() -> None:
    """Serve on port 443 for ever."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(HERE / "server.pem", HERE / "server.key")
    server = Server(("", 443), Handler)
    server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print("listening", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
