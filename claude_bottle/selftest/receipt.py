"""The isolation self-test: what a bottle is asked, how its answers are judged, and the receipt. Pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from claude_bottle.bottle import docker_flags
from claude_bottle.bottle.plan import Plan
from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.egress.allowlist import API
from claude_bottle.host.addresses import Addresses
from claude_bottle.process import container
from claude_bottle.selftest import credential_checks, inspect_checks, limit_checks, network_checks, userland_checks
from claude_bottle.selftest.evidence import Evidence, Inconclusive, NotApplicable, Seen

Argv = tuple[str, ...]

_MEMORY = 256 * 1024 * 1024  # bytes for the probe; 30 MB were seen
_LOADER = "import sys; exec(sys.stdin.buffer.read({})); exec(sys.stdin.buffer.readline())"
_DETAIL = 400  # characters that a line of the receipt may take from what others wrote


class Verdict(Enum):
    """How a check ended; a check that did not run has failed."""

    PASSED = "passed"
    FAILED = "failed"
    WARNING = "warning"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True)
class Check:
    """One promise and what became of it; `detail` is the promise where it holds, else what is wrong."""

    name: str
    verdict: Verdict
    detail: str

    @property
    def line(self) -> str:
        """Return the check as one line."""
        return f"  {self.verdict.value:<14}  {self.name:<17}  {self.detail}"


@dataclass(frozen=True)
class Receipt:
    """The result of a self-test that took so many seconds."""

    checks: tuple[Check, ...]
    seconds: float

    @property
    def failed(self) -> tuple[Check, ...]:
        """Return the checks that failed; where there are any, the bottle must not be used."""
        return self._with(Verdict.FAILED)

    def line(self) -> str:
        """Return the receipt in short: one line, and one more for every failure and warning."""
        counts = [f"{len(self._with(Verdict.PASSED))} checks passed in {self.seconds:.1f} s"]
        for verdict in (Verdict.FAILED, Verdict.NOT_APPLICABLE):
            counts += [f"{len(found)} {verdict.value}"] if (found := self._with(verdict)) else []
        told = (*self.failed, *self._with(Verdict.WARNING))
        return "\n".join((f"isolation  {', '.join(counts)}", *(check.line for check in told)))

    def lines(self) -> tuple[str, ...]:
        """Return every check as a line."""
        return tuple(check.line for check in self.checks)

    def as_json(self) -> dict[str, object]:
        """Return the receipt as data for json.dumps."""
        checks = [{"name": each.name, "verdict": each.verdict.value, "detail": each.detail} for each in self.checks]
        return {"passed": not self.failed, "seconds": round(self.seconds, 3), "checks": checks}

    def _with(self, verdict: Verdict) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.verdict is verdict)


@dataclass(frozen=True)
class _Rule:
    """A check: `faults` returns what is wrong, or raises Inconclusive or NotApplicable; else it did not run."""

    name: str
    promise: str
    faults: Callable[[Evidence], Iterable[str]]


RULES = (
    _Rule("direct", "TCP to the internet fails at once", network_checks.direct),
    _Rule("gateway", "the network's first address does not answer", network_checks.gateway),
    _Rule("docker0", "the host does not answer on docker0", network_checks.docker0),
    _Rule("host", "the host does not answer on any of its addresses", network_checks.host),
    _Rule("udp", "UDP cannot be sent", network_checks.udp),
    _Rule("broadcast", "broadcast and multicast cannot be sent", network_checks.broadcast),
    _Rule("names", "an outside name does not resolve", network_checks.names),
    _Rule("ipv6", "there is no IPv6 address", network_checks.ipv6),
    _Rule("proxy", "the sidecar answers and is strict", network_checks.proxy),
    _Rule("refusal", "a host outside the list is refused", network_checks.refusal),
    _Rule("api", f"{API} is let through", network_checks.api),
    _Rule("capabilities", "no process has a capability", network_checks.capabilities),
    _Rule("no-new-privileges", "no process can gain privileges", network_checks.no_new_privileges),
    _Rule("seccomp", "every process is under seccomp", network_checks.seccomp),
    _Rule("user", "no process is root, seen from inside and from outside", userland_checks.user),
    _Rule("guard", "what holds the bottle is out of the agent's reach", userland_checks.guard),
    _Rule("userland", "the programs of this launcher's own are the base image's", userland_checks.userland),
    _Rule("docker-socket", "there is no socket of a container engine", network_checks.docker_socket),
    _Rule("secrets", "no variable is named like a token or key", inspect_checks.secrets),
    _Rule("environment", "the container's variables are the planned ones", inspect_checks.environment),
    _Rule("network", "the container is on its own network alone", inspect_checks.network),
    _Rule("mounts", "nothing is mounted, or the key-holder's socket alone", inspect_checks.mounts),
    _Rule("privileges", "nothing was added and no namespace is shared", inspect_checks.privileges),
    _Rule("limits", "cpus, memory and processes are limited", limit_checks.limits),
    _Rule("restart", "nothing restarts, which would lose the lock", inspect_checks.restart),
    _Rule("sidecar", "the sidecar is confined as planned", inspect_checks.sidecar),
)
CREDENTIAL_RULES = (
    _Rule("signing", "signed hosts get the session's credentials alone, within their paths", credential_checks.signing),
    _Rule("upstream", "a server with a wrong certificate gets nothing", credential_checks.upstream),
    _Rule("authority", "the session's authority is bound to the signed hosts' names", credential_checks.authority),
    _Rule("credential-proxy", "what has the credentials has no privilege", credential_checks.credential_proxy),
    _Rule("token", "the token is found in no process or file of the bottle", credential_checks.token),
)
KEY_RULES = (_Rule("key-holder", "what has the ssh keys has no network and no privilege", inspect_checks.key_holder),)


def probe_name(plan: Plan) -> str:
    """Return the name of the probe's container."""
    return f"{plan.name}-probe"


def probe_argv(plan: Plan, program: int) -> Argv:
    """Return the command that runs the probe: a container of the base image in the bottle's namespaces.

    stdin: its program, of so many bytes, which is loaded at once, then a line, its question, which is run as well.
    Nothing of the bottle's image runs in it. It has the user of the bottle's first processes: nobody else without a
    privilege sees their files.
    """
    first, *words = container.clean(*container.PYTHON[:-1], "-c", _LOADER.format(program))
    return (
        *("docker", "run", "--name", probe_name(plan), "--pull", "never", "--interactive", "--rm"),
        *("--log-driver", "none", "--no-healthcheck"),
        *("--network", f"container:{plan.name}", "--pid", f"container:{plan.name}"),
        *("--user", container.GUARD, "--read-only", *docker_flags.unprivileged()),
        *("--pids-limit", "64", *docker_flags.memory(_MEMORY)),
        *docker_flags.labels(plan, "probe"),
        *docker_flags.proxy_variables(),
        *("--entrypoint", first, plan.base.tag, *words),
    )


def processes_argv(plan: Plan) -> Argv:
    """Return the command that has the engine list the bottle's processes and their users."""
    return ("docker", "top", plan.name, "-eo", "pid,ruid,euid,suid")


def probe_input(plan: Plan, known: Addresses) -> tuple[bytes, str]:
    """Return the probe's program, for its stdin, and its question: see `probe_call`."""
    prepare = f"base = prepare{userland_checks.compared()!r}\n"
    source = "\n".join((*map(_source, ("probe.py", "search.py")), prepare))
    asked = (network_checks.question(plan, known), credential_checks.question(plan))
    question = {key: value for part in asked for key, value in part.items()}
    return source.encode(), repr(question)


def probe_call(question: str) -> tuple[str, str]:
    """Return the line that has the probe's program look, up to the session's authority, in base64, and behind it."""
    return f"main({question}, base, '", "', search)\n"


def search_program(plan: Plan) -> bytes:
    """Return the program that searches the bottle as the agent, whose home nobody else can read."""
    words = ", ".join(map(repr, credential_checks.sought(plan)))
    return f"{_source('search.py')}\nimport json\nprint(json.dumps(search({words})))\n".encode()


def _source(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def inspect_argv(plan: Plan) -> Argv:
    """Return the command that shows what was really built: the session's containers, and its images' variables."""
    others = (*((plan.gate,) if plan.ended else ()), *((plan.key_holder,) if plan.keys else ()))
    images = dict.fromkeys((plan.image.tag, plan.base.tag))
    return ("docker", "inspect", plan.name, plan.sidecar, *others, *images)


def judge(plan: Plan, known: Addresses, seen: Seen, seconds: float) -> Receipt:
    """Judge what was printed, whatever it is; `seconds` is how long that took."""
    evidence = Evidence.read(plan, known, seen)
    rules = (*RULES, *(CREDENTIAL_RULES if plan.ended else ()), *(KEY_RULES if plan.keys else ()))
    return Receipt(tuple(_check(rule, evidence) for rule in rules), seconds)


def _check(rule: _Rule, evidence: Evidence) -> Check:
    faults: list[str] = []
    try:
        for fault in rule.faults(evidence):
            faults.append(fault)  # noqa: PERF402  (those before an exception count)
    except NotApplicable as reason:
        return Check(rule.name, Verdict.NOT_APPLICABLE, str(reason))
    except Inconclusive as reason:
        if not faults:
            return Check(rule.name, Verdict.WARNING, _shortened(str(reason)))
    except Exception as error:  # whatever others printed must neither pass nor end the launcher
        return Check(rule.name, Verdict.FAILED, _shortened(f"did not run ({type(error).__name__}: {error})"))
    if faults:
        return Check(rule.name, Verdict.FAILED, _shortened("; ".join(faults)))
    return Check(rule.name, Verdict.PASSED, rule.promise)


def _shortened(text: str) -> str:
    shown = escape_control_chars(text)
    return shown if len(shown) <= _DETAIL else shown[:_DETAIL] + " ..."
