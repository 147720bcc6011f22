"""Methods and paths: what a manifest may name, and the reason for what it may not."""

import pytest

from claude_bottle.manifest.request_rules import method_problem, path_problem


@pytest.mark.parametrize("path", ["/", "/a", "/a/", "/a/b.git/", "/a/...", "/.well-known/x", "/%C3%BC", "/a:b@c,d=e&f"])
def test_a_path_is_exact_or_a_prefix(path: str) -> None:
    assert path_problem(path) is None


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", 'must begin with "/"'),
        ("a/", 'must begin with "/"'),
        ("https://a.com/b", 'must begin with "/"'),
        ("/" + "a" * 1000, "must be at most 1000 characters long"),
        ("/a b", "must not contain spaces, control or invisible characters"),
        ("/a\x7f", "must not contain spaces, control or invisible characters"),
        ("/a\u200b", "must not contain spaces, control or invisible characters"),
        ("/\u00fc", "must be ASCII: write other characters percent-encoded, as a request does"),
        ("/a?b=c", 'must not contain "?" or "#": only the path is compared'),
        ("/a#b", 'must not contain "?" or "#": only the path is compared'),
        ("/a/*", 'has no patterns: a path that ends in "/" includes everything under it'),
        ("/a\\b", 'must not contain "\\" or ";"'),
        ("/a;b", 'must not contain "\\" or ";"'),
        ("//a", 'must not contain "//"'),
        ("/a//", 'must not contain "//"'),
        ("/./a", 'must not contain a part "." or ".."'),
        ("/a/..", 'must not contain a part "." or ".."'),
        ("/a/../b", 'must not contain a part "." or ".."'),
        ("/%2e%2e/a", 'must not contain "%2e"'),
        ("/a%2Fb", 'must not contain "%2F"'),
        ("/a%5cb", 'must not contain "%5c"'),
        ("/a%252fb", 'must not contain "%25"'),
        ("/a/..%3B/b", 'must not contain "%3B"'),
        ("/a%0ab", 'must not contain "%0a"'),
        ("/a%7fb", 'must not contain "%7f"'),
        ("/%C0%ae", 'must not contain "%C0"'),
        ("/100%", 'must have two hexadecimal digits after "%"'),
        ("/%zz", 'must have two hexadecimal digits after "%"'),
    ],
)
def test_a_path_that_a_server_could_read_as_another_is_refused(path: str, reason: str) -> None:
    assert path_problem(path) == reason


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("GET", None),
        ("M-SEARCH", None),
        ("get", "must be a method in capitals, such as GET"),
        ("", "must be a method in capitals, such as GET"),
        ("*", "must be a method in capitals, such as GET"),
        ("GET ", "must be a method in capitals, such as GET"),
        ("GET\n", "must be a method in capitals, such as GET"),
        ("TRACE", "the credential proxy refuses TRACE"),
        ("CONNECT", "the credential proxy refuses CONNECT"),
    ],
)
def test_a_method_is_in_capitals_and_one_that_the_proxy_takes(method: str, reason: str | None) -> None:
    assert method_problem(method) == reason
