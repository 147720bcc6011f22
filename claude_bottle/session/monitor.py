"""Monitor a running session: logs and liveness of its containers, the link, the limit of time."""

import contextlib
import sys
import threading
from collections.abc import Callable, Mapping, Sequence

from claude_bottle.bottle import reach
from claude_bottle.bottle.plan import Plan
from claude_bottle.egress.allowlist import Host, further_problem
from claude_bottle.egress.log import Refusals, Tally
from claude_bottle.errors import BottleError, DockerError
from claude_bottle.host import console, installation
from claude_bottle.process import command
from claude_bottle.process.command import Client
from claude_bottle.process.engine import Engine
from claude_bottle.session import time_limit

_BEAT = 10.0  # seconds between heartbeats to a remote bottle, whose first process exits after 45 without one
_LOOK = 1.0  # seconds between checks of the key-holder's client; a check starts no process
_TIMEOUT = 10.0  # seconds for the engine to report whether the sidecar is running
# A process of its own, which Ctrl-Z does not stop. It holds a lifeline, so it ends with the launcher.
_HEART = """
import os, select, sys
while not select.select([0], [], [], float(sys.argv[1]))[0]:
    try:
        os.write(int(sys.argv[2]), b"\\n")
    except OSError:
        break
"""
KEY_HOLDER_ENDED = "the key-holder has exited, which ended the session"
_NAMED = 5  # hosts whose refusal is told at once
_LAST_LINES = 5.0  # seconds to read the rest of the log, once the sidecar is gone


class Heart:
    """The heartbeats of what a remote engine runs only as long as it gets them."""

    def __init__(self, env: Mapping[str, str]) -> None:
        """Beat for nothing yet; `env` is the environment of the processes that do."""
        self._env = env
        self._hearts: list[Client] = []

    def beat(self, client: Client) -> None:
        """Start the heartbeat on a client's stdin, a lifeline; it ends with this process."""
        assert client.process.stdin  # noqa: S101  (it is a pipe: see command.start())
        lifeline = client.process.stdin.fileno()
        argv = (sys.executable, "-IS", "-c", _HEART, str(_BEAT), str(lifeline))
        self._hearts.append(command.start(argv, self._env, inherited=(lifeline,)))

    def stop(self) -> None:
        """End every heartbeat: a lifeline ends when nobody holds it any more."""
        for heart in self._hearts:
            heart.close_stdin()


class Monitor:
    """Counts a session's requests, and ends the bottle when the sidecar, the credential proxy or the key-holder exits.

    `ended` is the error for which the bottle was ended, else None; `last` is called just before that. At the limit of
    its time only claude is ended, and the session goes on to its own end. Without a terminal, or in the background, the
    first refusals are printed as they come, and notice of the limit.
    """

    def __init__(
        self,
        plan: Plan,
        env: Mapping[str, str],
        bottle: Client,
        started: Callable[[int], None],
        heart: Heart,
        key_holder: Client | None = None,
        ended: Sequence[str] = (),
        *,
        detached: bool = False,
    ) -> None:
        """Prepare to monitor the session of `plan`; `start` begins.

        The stdin of the client `bottle` is the bottle's lifeline, that of `key_holder` the key-holder's; `heart` holds
        all lifelines if the bottle is remote. `started` is called with the pid of each client that follows a log. If
        TLS of some hosts is `ended`, by the credential proxy, its log is followed beside the sidecar's.
        """
        self._started = started
        self.last: Callable[[], None] = lambda: None
        self.tally = Tally(ended)
        # On the user's terminal nothing may come between the bytes of claude's screen.
        silent = plan.run.terminal and not detached
        self._refusals, self._session = Refusals(0 if silent else _NAMED + 1), plan.session
        self._counting = threading.Lock()
        self.ended: BottleError | None = None
        self._env, self._bottle = env, bottle
        self._over = threading.Event()
        self._claude_ended, self._ending = threading.Event(), threading.Lock()
        self._container, self._time = plan.name, plan.agent.bottle.limits.time
        self._notify = (lambda _: None) if silent else console.say
        followed = [(plan.sidecar, "sidecar"), *([(plan.gate, "credential proxy")] if ended else [])]
        self._followers = [threading.Thread(target=self._follow, args=each, daemon=True) for each in followed]
        self._key_holder, self._heart = key_holder, heart

    def start(self) -> None:
        """Start the monitoring threads."""
        for follower in self._followers:
            follower.start()
        if self._key_holder:
            threading.Thread(target=self._hold, args=(self._key_holder,), daemon=True).start()
        if self._time:
            threading.Thread(target=self._limit, args=(self._time,), daemon=True).start()

    def claude_ended(self) -> None:
        """Hear that claude has ended, so that no limit of time ends anything any more."""
        with self._ending:  # a signal that is being sent must not reach what runs after claude
            self._claude_ended.set()

    def end_bottle(self) -> None:
        """End the bottle by its lifeline; the rest of the session remains."""
        self._heart.stop()
        self._bottle.close_stdin()

    def stop(self) -> None:
        """Stop monitoring: from now on the session itself ends its parts."""
        self._claude_ended.set()
        self._over.set()
        self._heart.stop()

    def join(self) -> None:
        """Wait until the logs are read to their ends, which needs their containers removed; a few seconds at most."""
        for follower in self._followers:
            follower.join(_LAST_LINES)

    def _follow(self, container: str, what: str) -> None:
        followed = ("docker", "logs", "--follow", container)
        reason: BottleError | None = None
        while reason is None and not self._over.is_set():
            try:
                for line in command.lines(followed, self._env, started=self._started):
                    with self._counting:
                        self._print_refused(self._refusals.first(self.tally.add(line)))
                reason = None if self._over.is_set() else self._why(container, what)
                if reason is None:
                    self._over.wait(1)  # no busy loop if the log cannot be followed
            except BottleError as error:  # docker or its engine has vanished
                reason = error
        if not self._over.is_set():
            # Fail closed: without either the bottle reaches nothing, and a restarted sidecar would lack the gate.
            self._end(reason)

    def _print_refused(self, host: Host | None) -> None:
        if host and self._refusals.full:
            console.say(f"and more were refused: {installation.command(f'logs {self._session} --blocked')}")
        elif host:
            how = f"; to allow it: {reach.allowing(self._session, str(host))}"
            console.say(f"refused: {host}{'' if further_problem(host) else how}")

    def _end(self, reason: BottleError | None) -> None:
        self.ended = self.ended or reason  # one that ends may take others along
        self.last()
        self.end_bottle()

    def _why(self, container: str, what: str) -> BottleError | None:
        """Return why a log has ended; None if its container still runs, and only the log's client has ended.

        Raises EngineError.
        """
        asked = ("inspect", "--format", "{{.State.Running}}", container)
        result = Engine(self._env).ask(*asked, timeout=_TIMEOUT)
        if result.stdout.strip() == b"true":
            return None
        return DockerError(f"the {what} has exited, which ended the session")

    def _hold(self, key_holder: Client) -> None:
        """End the session when its key-holder exits: the rest could not do what the manifest promises."""
        while not self._over.wait(_LOOK):
            if key_holder.ended_within(0):
                # If the bottle has ended as well, the link to the engine was cut: do not blame the key-holder.
                if not self._bottle.ended_within(_LOOK) and not self._over.is_set():
                    self._end(Engine(self._env).explained(DockerError(KEY_HOLDER_ENDED)))
                return

    def _limit(self, seconds: int) -> None:
        """End claude once the time is over; if that fails, the bottle."""
        reason = time_limit.passed(seconds, self._claude_ended.wait, self._notify)
        if not reason:
            return
        for signal in ("TERM", "KILL"):
            with self._ending:
                if self._claude_ended.is_set():
                    return
                self.ended = self.ended or reason
                with contextlib.suppress(BottleError):  # then the bottle's end is all that is left to try
                    time_limit.end_processes(self._container, self._env, signal)
            if self._claude_ended.wait(time_limit.GRACE):
                return
        self._end(reason)
