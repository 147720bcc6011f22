"""Hold the shape of claude_bottle/: who may import whom, one owner for each outside thing, short modules."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "claude_bottle"
MODULES = sorted(PACKAGE.glob("*.py"))

# Each module may import only modules that stand before it. A new one gets a place here, as far to the front as it can.
ORDER = (
    "__init__", "probe", "exporter", "errors", "text", "host", "yamldoc", "yamledit", "docker", "tty", "checks",
    "identity", "clone", "stream", "git", "hazards", "changes", "pipelock", "events", "env", "keyfile",
    "knownhosts", "ssh", "bottle", "manifest", "image", "staging", "repository", "quarantine", "answers", "leaving",
    "handback", "addresses", "plan", "flags", "keyholder", "netfilter", "evidence", "inspection", "reach",
    "selftest", "sidecar", "steps", "preflight", "engine", "survey", "teardown", "runner", "leftovers", "watchdog",
    "monitor", "uncork", "session", "doctor", "sessions", "allow", "commands", "work", "cli",
)  # fmt: skip

OWNERS = {
    "atexit": {"teardown"},
    "click": {"cli"},
    "pexpect": {"tty"},
    "ruamel": {"yamldoc"},
    "signal": {"teardown", "tty", "watchdog"},
    "subprocess": {"docker", "exporter"},
}
ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv"}
STARTS_A_PROCESS = {"execv", "execve", "execvp", "execvpe", "fork", "forkpty", "popen", "posix_spawn", "system"}

# Values in, values out: what these make is shown by a dry run and compared with golden files.
PURE = {
    "clone", "events", "flags", "hazards", "keyfile", "keyholder", "knownhosts", "netfilter", "pipelock", "plan",
    "sidecar", "steps", "yamledit",
}  # fmt: skip
IMPURE = {"datetime", "docker", "git", "os", "random", "secrets", "socket", "tempfile", "time", "tty", "uuid"}

# Slow to import: `--help` must not pay for them.
LAZY = {"pexpect", "ruamel"}


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield what is imported anywhere under `tree`, siblings as `.name`, the rest as the top-level package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first, _, rest = alias.name.partition(".")
                yield f".{rest}" if first == "claude_bottle" and rest else first
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            module = node.module or ""
            if node.level or module.partition(".")[0] == "claude_bottle":
                sibling = module.removeprefix("claude_bottle").removeprefix(".")
                own = [name for name in names if (PACKAGE / f"{name}.py").exists()]
                yield from (f".{sibling}",) if sibling else (f".{name}" for name in own)
            else:
                yield module.partition(".")[0]


def at_import_time(tree: ast.Module) -> ast.Module:
    """Return the module without its functions and without what only a type checker reads."""

    class Strip(ast.NodeTransformer):
        def visit_FunctionDef(self, _: ast.FunctionDef) -> None:
            return None

        def visit_If(self, node: ast.If) -> ast.AST | None:
            return None if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)

    stripped: ast.Module = Strip().visit(tree)
    return stripped


def os_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            yield node.attr
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_keeps_to_its_place(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    name = path.stem
    assert name in ORDER, f"give {name} a place in ORDER"
    allowed = {f".{before}" for before in ORDER[: ORDER.index(name)]}
    imported = set(imports(tree))
    assert {each for each in imported if each.startswith(".")} <= allowed
    assert {each for each in imported & OWNERS.keys() if name not in OWNERS[each]} == set()
    assert name not in PURE or {each.lstrip(".") for each in imported} & IMPURE == set()
    assert name in ("exporter", "host") or ENVIRONMENT.isdisjoint(os_names(tree))
    assert STARTS_A_PROCESS.isdisjoint(os_names(tree))
    assert LAZY.isdisjoint(imports(at_import_time(tree)))
    assert name == "exporter" or len(text.splitlines()) <= 250


def test_the_rules_see_every_way_to_import() -> None:
    tree = ast.parse(
        "import os.path, claude_bottle.plan\n"
        "from . import tty, host\n"
        "from .docker import run\n"
        "from claude_bottle import steps\n"
        "from claude_bottle.image import base\n"
        "if TYPE_CHECKING:\n    import pexpect\n"
        "def lazy():\n    import ruamel.yaml\n"
    )
    assert set(imports(tree)) == {"os", ".plan", ".tty", ".host", ".docker", ".steps", ".image", "pexpect", "ruamel"}
    assert LAZY.isdisjoint(imports(at_import_time(tree)))
    assert set(os_names(ast.parse("import os\nos.environ\nfrom os import getenv"))) == {"environ", "getenv"}
