"""The docker flags that several containers share, each there for a leak that was measured."""

from collections.abc import Iterable

from claude_bottle import PREFIX
from claude_bottle.bottle.plan import Plan
from claude_bottle.documents.escaping import to_utf8
from claude_bottle.host import proof
from claude_bottle.host.owner import Owner

# Cannot be switched off; the default would hold Ctrl-P back.
DETACH = ("--detach-keys", "ctrl-@,ctrl-^,ctrl-@")
LABELS = (
    *("session", "role", "owner", "agent", "bottle", "mode", "manifest", "base", "repository", "signs", "time"),
    *("memory", "name", "proof"),
)
# Docker's client adds the user's `proxies` (~/.docker/config.json) to every container under these names, in both cases,
# credentials included; each is therefore set explicitly, empty if unused.
_END = "end"
PAUSE = 900  # seconds for which a bottle of files is held up
PAUSED = "bottle-paused"  # the name of the process that holds up a bottle of files; 15 bytes at most
# No program of an image's is run. A process is another user's unless -O, also one that ends during the look. The last
# number in loadavg is that of the newest process: if it has moved, a look may have missed one.
_GUARD = f"""\
while read -r -t 52 word; do [[ $word == {_END} ]] && exit; done
exec {{pause}}<> <(:)
for ((n = 0; n < 50; n++)); do
  left=
  read -r _ _ _ _ before < /proc/loadavg
  for each in /proc/[0-9]*; do [[ -O $each ]] || left=1; done
  read -r _ _ _ _ after < /proc/loadavg
  [[ $left || $before != "$after" ]] || {{ printf {PAUSED} > /proc/self/comm; read -r -t {PAUSE} -u $pause; exit; }}
  read -r -t 0.1 -u $pause
done"""
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY")


def owner_labels(session: str, role: str, owner: Owner, **known: str) -> tuple[str, ...]:
    """Return the labels of whatever belongs to a session: all of ours, so that none can come from an image."""
    values = {"session": session, "role": role, "owner": str(owner), **known}
    return tuple(f"{PREFIX}.{key}={values.get(key, '')}" for key in LABELS)


def owned_by(plan: Plan, role: str) -> tuple[str, ...]:
    """Return the labels of an object of a session, with the proof that it is the user's own."""
    name = {"agent": plan.name, "network": plan.name, "key-volume": plan.key_volume}.get(role, f"{plan.name}-{role}")
    known = {"agent": _described, "sidecar": _signs}.get(role, lambda _: {})(plan)
    fields = (plan.session, role, name, str(plan.owner), known.get("repository", ""), known.get("manifest", ""))
    return owner_labels(plan.session, role, plan.owner, **known, proof=proof.proof(plan.key, *fields))


def labels(plan: Plan, role: str) -> tuple[str, ...]:
    """Return the flags that label a container, network or named volume."""
    return label_flags(owned_by(plan, role))


def _described(plan: Plan) -> dict[str, str]:
    """Return what other commands want to know of a session."""
    bottle = plan.agent.bottle
    return {
        "agent": plan.agent.name,
        "bottle": bottle.name,
        "mode": "terminal" if plan.run.terminal else "headless",
        "manifest": to_utf8(str(bottle.path.absolute())),  # docker replaces what is not UTF-8
        "base": plan.base.tag,
        "memory": str(bottle.limits.memory or ""),
        "repository": plan.repository.work.label if plan.repository else "",
        "time": str(bottle.limits.time or ""),
        "name": plan.run.name,
        **_signs(plan),
    }


def _signs(plan: Plan) -> dict[str, str]:
    # On the sidecar as well: its log is there before the agent's container is, and after.
    return {"signs": ",".join(ended(plan))}


def ended(plan: Plan) -> tuple[str, ...]:
    """Return all hosts whose TLS the credential proxy ends, as `str(Host)`; none if the session has no such proxy."""
    return tuple(map(str, plan.ended))


def label_flags(pairs: Iterable[str]) -> tuple[str, ...]:
    """Return the flags of labels."""
    return tuple(word for pair in pairs for word in ("--label", pair))


def volume_labels(plan: Plan, role: str) -> str:
    """Return the part of a --mount that labels the volume that it makes, which takes no --label."""
    return ",".join(f"volume-label={label}" for label in owner_labels(plan.session, role, plan.owner))


def unprivileged() -> tuple[str, ...]:
    """Return the flags that leave a container no privilege and no way to one."""
    # Either alone leaks: without the first, raw sockets (ARP spoofing); without the second, setuid programs.
    return ("--cap-drop", "ALL", "--security-opt", "no-new-privileges")


def memory(limit: int) -> tuple[str, ...]:
    """Return the flags that bound a container's memory to `limit` bytes, swap included."""
    return ("--memory", str(limit), "--memory-swap", str(limit))  # the same, or swap doubles it


def without_ipv6(plan: Plan) -> tuple[str, ...]:
    """Return the flags that leave a container no IPv6 address."""
    # Without it the host's link-local address is reachable where somebody enabled IPv6.
    return ("--sysctl", "net.ipv6.conf.all.disable_ipv6=1") if plan.facts.ipv6_off else ()


def proxy_variables(proxy: str = "", direct: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the flags that set every proxy variable, to `proxy` (not for the hosts in `direct`) or to nothing."""
    values = {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "NO_PROXY": ",".join(direct)}
    pairs = [f"{form}={values.get(name, '')}" for name in _PROXIES for form in (name, name.lower())]
    return tuple(word for pair in pairs for word in ("--env", pair))


def lifeline(plan: Plan) -> str:
    """Return the shell command that reads a container's stdin, a pipe that the launcher holds, to its end.

    Over a link that can break it also expects a line every 45 s, which comes even if the launcher is suspended.
    """
    return f"while read -r{' -t 45' if plan.remote else ''} _; do :; done"


def parting(plan: Plan) -> bytes:
    """Return the last line for the lifeline of a bottle that is to end in order."""
    return f"{_END}\n".encode() if plan.keeps_work else b""


def guard(plan: Plan) -> str:
    """Return the shell command that holds a bottle up: its lifeline and, if it keeps its work, what comes after that.

    Without a word of parting the link was cut: the files stay for 15 minutes, without a process of the agent's. If one
    does not end, which this one cannot signal, the bottle ends with all that is in it.
    """
    return _GUARD if plan.keeps_work else lifeline(plan)


def feed_stdin(data: bytes, command: str) -> str:
    """Return the shell command that feeds `data`, the beginning of its stdin, to another, and then says so."""
    return f"head --bytes {len(data)} | {command} && echo up"


def nft(name: str, target: str, image: str, owned: Iterable[str], rules: bytes) -> tuple[str, ...]:
    """Return the command that has nft read `rules`, from stdin, in the network `target`, such as `container:NAME`.

    It says that they are in force and ends when its stdin does: a line comes sooner than the end of a container.
    """
    return (
        *("docker", "run", "--name", name, "--pull", "never", "--interactive", "--rm", "--log-driver", "none"),
        *("--network", target),
        *("--user", "0:0", "--read-only"),
        *("--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--security-opt", "no-new-privileges"),
        "--no-healthcheck",
        *label_flags(owned),
        *proxy_variables(),
        *("--entrypoint", "bash", image, "-c", f"{feed_stdin(rules, 'nft --file -')} && cat"),
    )
