"""Watch a running session: its sidecar's log, its sidecar's life, and a link that can be cut silently."""

import sys
import threading
from collections.abc import Callable, Mapping

from claude_bottle.bottle.plan import Plan
from claude_bottle.egress.log import Tally
from claude_bottle.errors import BottleError, DockerError, EngineError
from claude_bottle.process import command
from claude_bottle.process.command import Client

_BEAT = 10.0  # seconds between two lines to a remote bottle, whose first process gives up after 45
_LOOK = 1.0  # seconds between two looks at the key-holder's client, which cost no process
_TIMEOUT = 10.0  # seconds for the engine to say whether the sidecar lives
# In a process of its own, which goes on while Ctrl-Z has stopped the launcher, and ends with it: it holds lifelines.
_HEART = """
import os, select, sys
pipes = [int(word) for word in sys.argv[2:]]
while pipes and not select.select([0], [], [], float(sys.argv[1]))[0]:
    for pipe in tuple(pipes):
        try:
            os.write(pipe, b"\\n")
        except OSError:
            pipes.remove(pipe)
"""
KEY_HOLDER_ENDED = "the key-holder has ended, so the session was ended too"
_LAST_LINES = 5.0  # seconds for the end of the log of a sidecar that is gone


class Monitor:
    """Counts what the sidecar lets through, and ends the bottle when the sidecar or the key-holder ends.

    `ended` is why the bottle was ended, None where it was not; `last` is done before it is.
    """

    def __init__(
        self,
        plan: Plan,
        env: Mapping[str, str],
        bottle: Client,
        started: Callable[[int], None],
        key_holder: Client | None = None,
    ) -> None:
        """Prepare to watch the session of `plan`.

        The stdin of the client `bottle` is its lifeline, and so is the key-holder's; `started` hears the pid of each
        client that follows the log.
        """
        self._started = started
        self.last: Callable[[], None] = lambda: None
        self.tally = Tally()
        self.ended: BottleError | None = None
        self._sidecar, self._env, self._bottle = plan.sidecar, env, bottle
        self._over = threading.Event()
        self._follower = threading.Thread(target=self._follow, daemon=True)
        self._key_holder, self._remote = key_holder, plan.remote
        self._heart: Client | None = None

    def start(self) -> None:
        """Watch from now on."""
        if self._remote:
            self._heart = self._beat()
        self._follower.start()
        if self._key_holder:
            threading.Thread(target=self._hold, args=(self._key_holder,), daemon=True).start()

    def stop(self) -> None:
        """Stop watching: what ends from now on ends because the session does."""
        self._over.set()
        self._still()

    def join(self) -> None:
        """Wait until the log has been read to its end, once the sidecar is removed."""
        self._follower.join(_LAST_LINES)

    def _follow(self) -> None:
        followed = ("docker", "logs", "--follow", self._sidecar)
        reason: BottleError | None = None
        while reason is None and not self._over.is_set():
            try:
                for line in command.lines(followed, self._env, started=self._started):
                    self.tally.add(line)
                reason = None if self._over.is_set() else self._why()
                if reason is None:
                    self._over.wait(1)  # a log that cannot be followed is not asked for again and again
            except BottleError as error:  # docker has vanished
                reason = error
        if not self._over.is_set():
            # Fail closed: without its sidecar the bottle reaches nothing, and another would come without the gate.
            self._end(reason)

    def _end(self, reason: BottleError | None) -> None:
        self.ended = reason
        self.last()
        self._still()
        self._bottle.finish()

    def _why(self) -> BottleError | None:
        """Return why a log that was followed has ended; None where only the following ended."""
        asked = ("docker", "inspect", "--format", "{{.State.Running}}", self._sidecar)
        result = command.run(asked, self._env, timeout=_TIMEOUT)
        if result.unreachable or result.timed_out:
            return EngineError(f"the Docker engine does not answer any more ({result.reason})")
        if result.stdout.strip() == b"true":
            return None
        return DockerError("the sidecar has ended, so the session was ended too")

    def _beat(self) -> Client:
        """Start the heartbeat of all that gives up without one."""
        pipes = [client.process.stdin for client in (self._bottle, self._key_holder) if client]
        lifelines = [pipe.fileno() for pipe in pipes if pipe]
        argv = (sys.executable, "-IS", "-c", _HEART, str(_BEAT), *map(str, lifelines))
        return command.start(argv, self._env, inherited=lifelines)

    def _still(self) -> None:
        """End the heartbeat: a lifeline ends when nobody holds it any more."""
        if self._heart:
            self._heart.finish()

    def _hold(self, key_holder: Client) -> None:
        """End the session when its key-holder ends: what is left of it could not do what its manifest says."""
        while not self._over.wait(_LOOK):
            if key_holder.ended_within(0):
                # A link that was cut ends both: then it is not the key-holder's doing.
                if not self._bottle.ended_within(_LOOK) and not self._over.is_set():
                    self._end(DockerError(KEY_HOLDER_ENDED))
                return
