"""Open a shell in a session's bottle."""

from claude_bottle.bottle import docker_flags, job, passed_on
from claude_bottle.cleanup.stack import Teardown
from claude_bottle.host.machine import Machine
from claude_bottle.process import command, terminal
from claude_bottle.process.container import AGENT
from claude_bottle.session import engines
from claude_bottle.session.planning import check_values, client_environment


def shell(machine: Machine, name: str) -> int:
    """Run a shell in a session's bottle, as its agent's user; return the shell's exit code."""
    check_values(machine, passed_on.NAMES)
    machine, session = engines.find(machine, name)
    env = client_environment(machine)
    tty = ("--tty", *docker_flags.DETACH) if machine.interactive else ()
    given = (word for name in passed_on.names(machine.environ) for word in ("--env", name))
    bash = passed_on.known(job.stoppable(("bash",)) if machine.interactive else ("bash",))
    argv = ("docker", "exec", "--interactive", *tty, "--user", AGENT, *given, session.container, *bash)
    with Teardown():  # a signal must end docker's client too
        return terminal.run(argv, env, stops=True) if machine.interactive else command.attach(argv, env, silent=False)
