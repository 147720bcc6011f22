"""Something to build."""

from markupsafe import escape


def word() -> str:
    """Return a word that only the dependency can make."""
    return str(escape("<built>"))
