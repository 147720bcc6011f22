"""Build the product's own images while the user reads the preflight; after a no, nothing of that is left."""

import contextlib
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from claude_bottle.cleanup import builds
from claude_bottle.cleanup.stack import Teardown
from claude_bottle.cleanup.watchdog import Watchdog
from claude_bottle.errors import BottleError
from claude_bottle.process import command
from claude_bottle.process.command import Client
from claude_bottle.process.engine import Engine
from claude_bottle.session.building import Build, Shown
from claude_bottle.session.runner import StepError
from claude_bottle.session.steps import Step

_PLACE, _NAME = 1 << 18, "build"  # in the order of teardown: before every other undo


class Ahead:
    """Builds, one after the other, in a thread. Nothing of them is shown until the answer is known."""

    def __init__(self, steps: Sequence[tuple[Step, str]], env: Mapping[str, str], watchdog: Watchdog) -> None:
        """Prepare each step, which makes the image of a tag; `watchdog` is told what they make."""
        self._steps, self._env, self._watchdog = steps, env, watchdog
        self._made = builds.Made()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._lock = threading.Lock()  # guards the next four
        self._shown, self._stopping = Shown.NOTHING, False
        self._build: Build | None = None
        self._client: Client | None = None
        self._error: Exception | None = None
        self._own = dict[str, str]()  # the tags that images have until they are agreed to, by those that they get

    def begin(self) -> None:
        """Start the thread."""
        self._thread.start()

    def agree(self, shown: Shown) -> None:
        """Keep what is made from now on, and wait for the end, which is `shown`.

        Raises StepError for a build that failed, once its output has been printed, or EngineError.
        """
        with self._lock:
            self._made.note("kept")
            self._watchdog.built("kept")
            self._shown = shown
            if self._build:
                self._build.show(shown)
        self._thread.join()
        if self._error:  # what has been built before is kept by the teardown
            self._print_failure()
            raise self._error
        self._tag()

    def cancel(self) -> str | None:
        """End it and, unless the user has agreed, remove all that it has made; return why something is left.

        A build that had failed by then has its output printed.
        """
        with self._lock:
            failed = self._error
            self._stopping = True
            client, agreed = self._client, self._shown is not Shown.NOTHING
        if client:
            client.terminate()
        self._thread.join()
        if failed:
            self._print_failure()
        if agreed:
            self._tag()
        return builds.remove(self._env, self._made)

    def _print_failure(self) -> None:
        if self._build and isinstance(self._error, StepError):
            self._build.tell()

    def _work(self) -> None:
        try:
            before = builds.listed(self._env)
        except BottleError:
            return  # what cannot be told from others' is not built ahead: it is after the yes, which says what is wrong
        try:
            self._note("before", before)
            for step, tag in self._steps:
                self._own[tag] = f"{tag}-ahead-{secrets.token_hex(6)}"
                self._note("tag", self._own[tag])
                if not self._built(replace(step, argv=tuple(map(self._renamed, step.argv)))):
                    return
                self._note("end")
        except Exception as error:  # such as docker uninstalled meanwhile; the main thread waits for it
            self._error = error

    def _renamed(self, word: str) -> str:
        """Return a word of a build's command with the builds' own tags in the place of the images'."""
        for tag, own in self._own.items():
            word = word.replace(tag, own)
        return word

    def _tag(self) -> None:
        """Give each image that is built its tag, unless another build has made that meanwhile, and end its own."""
        engine, left = Engine(self._env), False
        for tag, own in self._own.items():
            if not builds.exists(engine, "image", tag):
                engine.ask("tag", own, tag)  # without it, or if that fails, a later step builds the image
            removed = engine.ask("image", "rm", "--no-prune", own)
            left = left or not (removed.ok or removed.absent)
        if not left:
            self._made.note("tagged")
            self._watchdog.built("tagged")

    def _built(self, step: Step) -> bool:
        """Build one; return whether to go on."""
        with self._lock:
            if self._stopping:
                return False
            self._client = client = command.start(step.argv, self._env, mixed=True)
            self._watchdog.note(client.pid)
            self._build = build = Build(step.name, self._shown, self._note)
        result = build.run(client, step.stdin)
        with self._lock:
            if not (result.ok or self._stopping):
                self._error = StepError(step, result)
        return result.ok

    def _note(self, kind: str, value: object = None) -> None:
        with self._lock:
            if self._shown is Shown.NOTHING or kind == "tag":
                self._made.note(kind, value)
                self._watchdog.built(kind, value)


@contextlib.contextmanager
def building(
    steps: Sequence[tuple[Step, str]], env: Mapping[str, str], undo: Teardown, watchdog: Watchdog, shown: Shown
) -> Iterator[None]:
    """Build while the block runs, and be done with it at its end; if the block raises, the teardown cancels it.

    Raises StepError for a build that failed, or EngineError.
    """
    if not steps:
        yield
        return
    ahead = Ahead(steps, env, watchdog)
    undo.arm(_PLACE, _NAME, ahead.cancel)
    ahead.begin()
    yield
    ahead.agree(shown)
    undo.disarm(_NAME)
