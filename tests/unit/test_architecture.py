"""Hold the shape of claude_bottle/: the order of the wings, one owner for each outside thing, short functions."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "claude_bottle"
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 40  # lines of a function

# A module imports from its own wing and from those before it.
WINGS = (
    "errors", "documents", "host", "process", "egress", "cleanup", "manifest", "repository", "bottle", "selftest",
    "session", "fleet", "commands", "cli", "__main__",
)  # fmt: skip

OWNERS = {
    "atexit": {"cleanup.stack"},
    "click": {"cli"},
    "pexpect": {"process.terminal"},
    "ruamel": {"documents.yaml_document"},
    "signal": {"cleanup.stack", "cleanup.watchdog", "process.background", "process.terminal"},
    "subprocess": {"process.command", "repository.exporter", "selftest.probe"},
}
ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv"}
SEARCHES = {"count", "endswith", "find", "findall", "fullmatch", "index", "match", "search", "startswith"}
# The exporter and the probe run in the bottle, where their output is their answer.
PRINTERS = {"host.console", "repository.exporter", "selftest.probe"}
STREAMS = {"stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__"}
CLICK_PRINTS = {"confirm", "echo", "progressbar", "prompt", "secho"}  # a pager is click's own
STARTS_A_PROCESS = {"execv", "execve", "execvp", "execvpe", "fork", "forkpty", "popen", "posix_spawn", "system"}

# Values in, values out: what these make is shown by a dry run and compared with golden files.
PURE = {
    "bottle.agent", "bottle.credential_proxy", "bottle.docker_flags", "bottle.firewall", "bottle.job",
    "bottle.key_holder", "bottle.passed_on", "bottle.plan", "bottle.reach", "bottle.sidecar", "bottle.state",
    "documents.escaping",
    "documents.yaml_edit", "egress.allowlist", "egress.credential_proxy", "egress.log", "manifest.api",
    "manifest.credentials", "manifest.known_hosts", "manifest.private_key", "manifest.request_rules", "process.frames",
    "process.modes", "process.screen", "process.wording", "repository.autorun_files", "repository.clone",
    "session.steps",
}  # fmt: skip
IMPURE = {
    "datetime", "os", "random", "secrets", "socket", "tempfile", "time", "uuid", ".process.command", ".repository.git",
}  # fmt: skip

# Slow to import: `--help` must not pay for them.
LAZY = {"pexpect", "ruamel"}


def dotted(path: Path) -> str:
    """Return a module's name within the package."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


NAMES = {dotted(path) for path in MODULES}


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield what is imported anywhere under `tree`: ours as `.wing.name`, others by their first part."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first, _, rest = alias.name.partition(".")
                yield f".{rest}" if first == "claude_bottle" and rest else first
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level or module.partition(".")[0] == "claude_bottle":
                inner = module.removeprefix("claude_bottle").removeprefix(".")
                parts = [f"{inner}.{alias.name}".removeprefix(".") for alias in node.names]
                yield from (f".{part}" if part in NAMES else f".{inner}" for part in parts if part in NAMES or inner)
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


def compares_stderr(tree: ast.AST) -> bool:
    """Return whether what a program prints on stderr is searched or compared, by an operator or by a method of str."""

    def of_stderr(node: ast.AST) -> bool:
        return any(isinstance(each, ast.Attribute) and each.attr == "stderr" for each in ast.walk(node))

    return any(
        (isinstance(node, ast.Compare) and of_stderr(node))
        or (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in SEARCHES
            and (of_stderr(node.func.value) or any(map(of_stderr, node.args)))
        )
        for node in ast.walk(tree)
    )


def prints(tree: ast.AST) -> Iterator[str]:
    """Yield what reaches for the terminal: a call of print or input, a stream of sys, a function of click."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id="print" | "input" as name):
                yield name
            case ast.Attribute(value=ast.Name(id="sys" | "click" as owner), attr=name):
                yield from (f"{owner}.{name}" for each in (STREAMS | CLICK_PRINTS) if each == name)
            case ast.ImportFrom(module="sys" | "click" as owner, names=aliases):
                yield from (f"{owner}.{alias.name}" for alias in aliases if alias.name in STREAMS | CLICK_PRINTS)


def upward(name: str, imported: set[str]) -> set[str]:
    """Return the imports of module `name` that come from a wing after its own, or from none."""
    place = WINGS.index(name.partition(".")[0]) if name != "__init__" else -1
    wings = {each: each[1:].partition(".")[0] for each in imported if each.startswith(".")}
    return {each for each, wing in wings.items() if wing not in WINGS[: place + 1]}


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_a_module_keeps_to_its_place(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    name = dotted(path)
    imported = set(imports(tree))
    assert upward(name, imported) == set()
    assert {each for each in imported & OWNERS.keys() if name not in OWNERS[each]} == set()
    assert name not in PURE or imported & IMPURE == set()
    assert name in {"__main__", "host.machine", "repository.exporter"} or ENVIRONMENT.isdisjoint(os_names(tree))
    # The first becomes an isolated interpreter, the second a launcher in the background.
    assert name in {"__main__", "process.background"} or STARTS_A_PROCESS.isdisjoint(os_names(tree))
    assert name == "process.wording" or not compares_stderr(tree), "what programs say is matched in process/wording.py"
    assert LAZY.isdisjoint(imports(at_import_time(tree)))
    assert name in PRINTERS or set(prints(tree)) == set()


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_a_function_fits_on_a_screen(path: Path) -> None:
    functions = (
        node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)
    )
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_no_imports_go_in_circles() -> None:
    graph = {name: {each[1:] for each in imports(ast.parse(path.read_text(encoding="utf-8"))) if each.startswith(".")}
             for name, path in zip(map(dotted, MODULES), MODULES, strict=True)}  # fmt: skip
    list(TopologicalSorter(graph).static_order())  # raises CycleError


def test_every_wing_says_what_it_is_for() -> None:
    for wing in {name.partition(".")[0] for name in NAMES if "." in name}:
        assert ast.get_docstring(ast.parse((PACKAGE / wing / "__init__.py").read_text(encoding="utf-8"))), wing


def test_names_of_modules_are_known() -> None:
    """A check of a module that has been renamed would look at nothing."""
    assert PURE | PRINTERS | set().union(*OWNERS.values()) <= NAMES


def test_the_rules_see_every_way_to_import() -> None:
    tree = ast.parse(
        "import os.path, claude_bottle.bottle.plan\n"
        "from claude_bottle.host import machine\n"
        "from claude_bottle.process.command import run\n"
        "if TYPE_CHECKING:\n    import pexpect\n"
        "def lazy():\n    import ruamel.yaml\n    from claude_bottle.session import runner\n"
    )
    ours = {".bottle.plan", ".session.runner", ".host.machine", ".process.command"}
    assert set(imports(tree)) == {*ours, "os", "pexpect", "ruamel"}
    assert upward("manifest.agent", ours) == {".bottle.plan", ".session.runner"}
    assert LAZY.isdisjoint(imports(at_import_time(tree)))
    assert set(os_names(ast.parse("import os\nos.environ\nfrom os import getenv"))) == {"environ", "getenv"}


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("'No such' in result.stderr", True),
        ("any(text in result.stderr.lower() for text in ABSENT)", True),
        ("result.stderr.startswith('fatal: ')", True),
        ("[line for line in result.stderr.splitlines() if line]", False),
        ("re.search('x', error.result.stderr)", True),
        ("wording.says(wording.ABSENT, result.stderr)", False),
        ("sys.stderr.isatty()", False),
    ],
)
def test_the_rules_see_what_is_compared(code: str, found: bool) -> None:
    assert compares_stderr(ast.parse(code)) == found


def test_the_rules_see_every_way_to_print() -> None:
    tree = ast.parse(
        "print(1)\nmap(print, [])\ninput()\nsys.stderr.write('')\nfrom sys import stdout as out\nimport sys, click\n"
        "click.echo('')\nfrom click import secho\nclick.echo_via_pager('')\nsys.exit(1)\n"
    )
    assert set(prints(tree)) == {"print", "input", "sys.stderr", "sys.stdout", "click.echo", "click.secho"}
    assert set(prints(ast.parse((PACKAGE / "host" / "console.py").read_text(encoding="utf-8")))) >= {"sys.stdout"}
