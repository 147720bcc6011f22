"""What a shell's TAB offers, and the scripts that make it ask: quick, without a prompt, silent on every error."""

import contextlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

from claude_bottle import PREFIX
from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.errors import BottleError
from claude_bottle.host import installation
from claude_bottle.host.machine import Machine
from claude_bottle.process import command

_SECONDS = 2.0  # until the user has nothing: an engine or a file system that does not answer holds up their typing

# Formatted by click, as its own are. These call the program by its path, with nothing on stdin and with stderr
# dropped, and know it by more than one name. They keep what is offered one word for the shell, whatever is in it: a
# branch of a cloned repository may be called "$(reboot)". Of `--ref=x` only what follows the `=` is completed.
_BASH = r"""%(complete_func)s() {
    local IFS=$'\n' i type value words=()
    for ((i = 0; i <= COMP_CWORD; i++)); do
        [[ ${COMP_WORDS[i]} == = ]] || words+=("${COMP_WORDS[i]}")
    done
    [[ ${COMP_WORDS[COMP_CWORD]} == = ]] && words+=("")
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames -o filenames ;;
            file) compopt -o default -o filenames ;;
            plain) COMPREPLY+=("$(printf %%q "$value")") ;;
        esac
    done < <(COMP_WORDS="${words[*]}" COMP_CWORD=$((${#words[@]} - 1)) %(complete_var)s=bash_complete \
        %(program)s </dev/null 2>/dev/null)
}

complete -o nosort -F %(complete_func)s %(names)s 2>/dev/null || complete -F %(complete_func)s %(names)s
"""
_ZSH = r"""#compdef %(names)s

%(complete_func)s() {
    local -a lines plain described
    local type value help
    lines=("${(@f)$(COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) %(complete_var)s=zsh_complete \
        %(program)s </dev/null 2>/dev/null)}")
    compset -P '--*='
    for type value help in "${lines[@]}"; do
        case $type in
            dir) _path_files -/ ;;
            file) _path_files -f ;;
            plain) if [[ $help == _ ]]; then plain+=("$value"); else described+=("$value:$help"); fi ;;
        esac
    done
    (( $#described )) && _describe -V unsorted described
    (( $#plain )) && compadd -V unsorted -a plain
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(names)s
fi
"""
_FISH = r"""function %(complete_func)s
    set -l token (commandline -ct)
    set -l option (string match --regex -- '^--[^=]+=' $token; or echo)
    for line in (COMP_WORDS=(commandline -cp | string collect) COMP_CWORD="$token" \
        %(complete_var)s=fish_complete %(program)s </dev/null 2>/dev/null)
        set -l parts (string split --max 1 , -- $line)
        switch $parts[1]
            case dir
                __fish_complete_directories "$parts[2]"
            case file
                __fish_complete_path "$parts[2]"
            case plain
                echo -- $option$parts[2]
        end
    end
end

for name in %(names)s
    complete --no-files --command $name --arguments '(%(complete_func)s)'
end
"""
TEMPLATES = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def variables(aliases: Iterable[str]) -> dict[str, str]:
    """Return what the templates need beside click's own variables."""
    names = " ".join(map(shlex.quote, (installation.NAME, *aliases)))
    return {"program": shlex.quote(installation.program()), "names": names}


def agents(host: Machine) -> tuple[str, ...]:
    """Return the names of the agents, of their files alone: reading these takes longer, and they may have faults."""
    from claude_bottle.manifest import agent

    return agent.names(host.agents)


def sessions(host: Machine) -> tuple[str, ...]:
    """Return the ids of the sessions that have a container, the newest first, and the names that users gave them."""
    from claude_bottle.session import engines
    from claude_bottle.session.planning import client_environment

    label = f"{PREFIX}.session"
    shown = f'{{{{.Label "{label}"}}}}\n{{{{.Label "{PREFIX}.name"}}}}'
    words = ("docker", "ps", "--all", "--filter", f"label={label}", "--format", shown)
    clients = [command.start(words, client_environment(place)) for place in engines.every(host)]
    try:
        found = [line for client in clients for line in _lines(client.wait(timeout=_SECONDS))]
    finally:
        for client in clients:
            client.terminate()
    return tuple(dict.fromkeys(filter(None, found)))


def kept(host: Machine) -> tuple[str, ...]:
    """Return the ids of the sessions of which something is kept, the newest first."""
    from claude_bottle.session.records import Records

    return tuple(record.session for record in Records.of(host).all())


def engines(host: Machine) -> tuple[str, ...]:
    """Return what `--on` takes."""
    from claude_bottle.session import engines

    return (*engines.named(host), engines.ANY)


def refs(host: Machine, repo: Path | None, agent: str | None) -> tuple[str, ...]:
    """Return the branches and tags of `repo`, else of the agent's repository, else of the current directory's."""
    from claude_bottle.manifest.agent import load_agent
    from claude_bottle.repository import git

    if repo is None and agent:
        repo = load_agent(host.agents, agent, environ=host.environ, home=host.home).repo
    there = git.Git((host.path(str(repo)) if repo else Path()).absolute(), git.environment(host.environ))
    # It starts no program of the repository's, so that any folder may be looked at.
    words = ("for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/tags")
    return _lines(command.run(there.argv(*words), there.env, timeout=_SECONDS))


def offered(kinds: str, host: Machine, given: Mapping[str, object], rest: Sequence[str], incomplete: str) -> list[str]:
    """Return "agents", "sessions", "kept" (sessions), "engines" or "refs", or more kinds, that begin with `incomplete`.

    `given` are the parameters on the command line, `rest` the words that could not be assigned to any.
    """
    repo, agent = cast("Path | None", given.get("repo")), given.get("agent") or next(iter(rest), None)
    typed = given.get("session") or ()
    found: list[str] = []
    for kind in ("sessions",) if given.get("as_session") else kinds.split():
        with contextlib.suppress(BottleError, OSError, ValueError):
            found += (
                agents(host) if kind == "agents"
                else sessions(host) if kind == "sessions"
                else kept(host) if kind == "kept"
                else engines(host) if kind == "engines"
                else refs(host, repo, cast("str | None", agent))
            )  # fmt: skip
    # What a script reads is one a line; nobody wants to type what cannot be seen.
    shown = (name for name in found if name and escape_control_chars(name) == name)
    return [name for name in shown if name.startswith(incomplete) and name not in cast("Sequence[str]", typed)]


def _lines(result: command.Result) -> tuple[str, ...]:
    return tuple(result.stdout.decode(errors="surrogateescape").splitlines()) if result.ok else ()
