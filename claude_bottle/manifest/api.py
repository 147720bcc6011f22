"""What a bottle may do at Anthropic's API beyond what Claude Code needs."""

from dataclasses import dataclass

from claude_bottle.manifest.request_rules import method_problem, path_problem
from claude_bottle.manifest.validation import Value

ANY = "*"  # in place of a method
_KEYS = ("paths", "server_side_fetch")


@dataclass(frozen=True)
class Api:
    """Further requests to the API: pairs of a method, or ANY, and a path; a path that ends in "/" is a prefix.

    With `server_side_fetch`, a request may have the API fetch addresses and run code.
    """

    paths: tuple[tuple[str, str], ...] = ()
    server_side_fetch: bool = False


def read_api(section: Value) -> Api:
    """Check the manifest's `api:`; the result is valid only if no fault was added."""
    section.keys(_KEYS)
    paths, fetch = (section.get(key) for key in _KEYS)
    found = [_path(item) for item in paths.items()] if paths else []
    return Api(tuple(dict.fromkeys(pair for pair in found if pair)), bool(fetch.flag()) if fetch else False)


def _path(item: Value) -> tuple[str, str] | None:
    """Read "/v1/files" or "POST /v1/files"."""
    text = item.text()
    if text is None:
        return None
    method, space, path = ("", "", text) if text.startswith("/") else text.partition(" ")
    problem = (space and method_problem(method)) or path_problem(path)
    if not text.startswith("/") and not space:
        problem = 'must be a path, or a method and a path, such as "POST /v1/files"'
    if problem:
        item.fail(problem)
    return method or ANY, path
