"""Sign in to Claude in a bottle of its own, and keep the token; and forget it."""

from claude_bottle.errors import BottleError, RefusedError, TokenError
from claude_bottle.host import console
from claude_bottle.host.machine import TOKEN_VARIABLE, Machine
from claude_bottle.session import sign_in, token_store
from claude_bottle.session.token_store import Place


def login(machine: Machine, *, verbose: bool) -> str:
    """Let the user choose a place, sign in, and keep the token there; return what to print.

    Raises RefusedError without a terminal or a choice, TokenError without a token or if the place cannot be used, and
    whatever a start raises.
    """
    if not machine.interactive:
        raise RefusedError("cannot sign in: stdin is not a terminal")
    places = token_store.places(machine)
    chosen = console.choose("Keep the token in", [place.title for place in places])
    if chosen is None:
        raise RefusedError("not signed in")
    place = places[chosen]
    place.read(machine, token_store.PATIENCE)  # to know before there is a token whether the place can be used
    console.say("signing in, in the only bottle that ever holds a credential; it ends right after")
    _keep(machine, place, sign_in.sign_in(machine, verbose=verbose))
    other = f"; but {TOKEN_VARIABLE} is set, and comes first" if machine.has_token else ""
    return f"signed in; the token is in {place.title}{other}"


def logout(machine: Machine) -> str:
    """Remove the token from where `login` has put it; return what to print; raises TokenError or OSError."""
    place = token_store.forget(machine)
    if not place:
        return "no token is kept; nothing changed"
    return f"removed the token from {place.title}; it is valid until you revoke it at claude.ai"


def _keep(machine: Machine, place: Place, token: str) -> None:
    try:
        token_store.keep(machine, place, token)
    except (BottleError, OSError) as error:
        raise TokenError(f"{error}; the token above is valid: export {TOKEN_VARIABLE}=<the token>") from None
