"""Fetch the work of a running session, or look at it."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from claude_bottle.cleanup.stack import Teardown
from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.errors import UsageError
from claude_bottle.host import console
from claude_bottle.host.machine import Machine
from claude_bottle.process import liveness
from claude_bottle.repository import fetch as handback
from claude_bottle.repository.clone import Work
from claude_bottle.repository.fetch import Bottle
from claude_bottle.session import engines, registry
from claude_bottle.session.planning import client_environment
from claude_bottle.session.registry import Session


def fetch(machine: Machine, name: str, notify: Callable[[str], None], *, tags: bool = False) -> None:
    """Bring a running session's work back as it is now; `notify` hears what came, also of a part before an error.

    With `tags` the agent's tags come as `bottle/<session>/<tag>`.

    Raises UsageError, RepositoryError or EngineError.
    """
    session, bottle = _bottle(machine, name)
    if liveness.liveness(bottle.owner, machine.owner) == "elsewhere":
        where = escape_control_chars(str(bottle.work.repository))
        raise UsageError(f"{where} is on the machine that started the session, not on this one")
    if not session.is_proven(machine.key):
        where = escape_control_chars(str(bottle.work.repository))
        raise UsageError(f"{where} is not written to: {registry.UNPROVEN.format(escape_control_chars(session.id))}")
    with Teardown():
        console.say(handback.begun())
        notify(handback.fetch(replace(bottle, owner=machine.owner), notify, tags=tags))


def diff(machine: Machine, name: str) -> Iterator[str]:
    """Return the lines of a running session's work against its start, which come one by one."""
    return _lines(_bottle(machine, name)[1])  # an error comes before there is a pager


def _lines(bottle: Bottle) -> Iterator[str]:
    with Teardown():
        yield from handback.diff(bottle)


def _bottle(machine: Machine, name: str) -> tuple[Session, Bottle]:
    """Return a session that has a repository, and its bottle; UsageError if it has none."""
    machine, session = engines.find(machine, name)
    work = Work.of_label(session.repository)
    if not work:
        raise UsageError(f"{escape_control_chars(session.id)} has no repository: it was started without --repo")
    return session, Bottle(session.id, session.owner, session.container, work, client_environment(machine))
