"""Answer what is no CONNECT: requests in absolute form, and requests for the proxy's own pages.

The rules are applied to both, but nothing is fetched: what they let through is a 502.
"""

import json
import re
import time
from typing import TYPE_CHECKING, NamedTuple

from . import log
from .http1 import BadRequest, Request
from .judge import Refusal

if TYPE_CHECKING:
    from .proxy import Proxy

version = "0-stand-in"
as_json = "application/json"
authority = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\x00-\x20\"#%/:<>?@\[\\\]^`{|}\x7f]*)(?::([0-9]{0,9}))?")
absolute = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(.*)")


def split_authority(text: str) -> tuple[str, str | None]:
    """Split `user@host:port` into host and port (None when there is none). Raises BadRequest."""
    match = authority.fullmatch(text.rpartition("@")[2])
    if not match:
        raise BadRequest
    return match[1], match[2]


class Url(NamedTuple):
    """An absolute URL in its three parts; `place` may hold a user and a port."""

    scheme: str
    place: str
    rest: str

    def shown(self, refusal: Refusal) -> str:
        """Write the URL for a log; one that a pattern matched may hold a secret."""
        return f"{self.scheme}://{self.place}" + ("/[redacted]" if refusal.scanner == "dlp" else self.rest)


def read_url(text: str) -> Url | None:
    match = absolute.fullmatch(text)
    return Url(match[1].lower(), match[2], match[3]) if match else None


def respond(proxy: "Proxy", request: Request, peer: str) -> bytes:
    """Answer one request."""
    url = read_url(request.target)
    if url and url.place and url.scheme != "file":
        return forward(proxy, request, peer, url)
    if url:
        return request.answer(404, "404 page not found")
    if request.target.startswith("/"):
        return page(proxy, request, peer)
    if request.method == "connect":
        return request.answer(307, "", Location="/")
    raise BadRequest


def refusal_of(proxy: "Proxy", url: Url) -> Refusal | None:
    if url.scheme not in ("http", "https"):
        return Refusal("scheme", f'scheme "{url.scheme}" not allowed: only http and https')
    host = split_authority(url.place)[0].strip("[]")
    return proxy.judge.by_name(host, f"{url.scheme}://{url.place}{url.rest}")


def forward(proxy: "Proxy", request: Request, peer: str, url: Url) -> bytes:
    """Answer a request in absolute form."""
    if not proxy.rules.enabled:
        return request.answer(405, "forward proxy not enabled")
    about = proxy.about(request, peer)
    refusal = refusal_of(proxy, url)
    if refusal:
        proxy.blocked(request.method, {"url": url.shown(refusal)}, about, refusal)
        return proxy.refuse(request, refusal, "blocked")
    log.event(
        "error", "error", "request error",
        method=request.method, url=request.target, **about, error="the stand-in fetches nothing",
    )  # fmt: skip
    return request.answer(502, "forward proxy fetch failed")


def page(proxy: "Proxy", request: Request, peer: str) -> bytes:
    """Answer a request for the proxy itself."""
    path = request.target.partition("?")[0]
    if path == "/health":
        return health(proxy, request)
    if path == "/fetch":
        return fetch(proxy, request, peer)
    if path == "/ws":
        return request.answer(404, "WebSocket proxy not enabled")
    if path == "/api/v1/killswitch":
        return request.answer(503, "kill switch API not configured (no api_token)")
    if path in ("/metrics", "/stats") and not proxy.judge.config.metrics_listen:
        return statistics(proxy, request)
    return request.answer(404, "404 page not found")


def health(proxy: "Proxy", request: Request) -> bytes:
    told = {
        "status": "healthy",
        "version": version,
        "mode": proxy.judge.config.mode,
        "uptime_seconds": round(time.monotonic() - proxy.born, 3),
        "forward_proxy_enabled": proxy.rules.enabled,
        "kill_switch_active": False,
    }
    return request.answer(200, json.dumps(told, separators=(",", ":")), as_json)


def statistics(proxy: "Proxy", request: Request) -> bytes:
    return request.answer(200, f"pipelock_active_tunnels {proxy.tunnels}")


def fetch(proxy: "Proxy", request: Request, peer: str) -> bytes:
    """Answer `/fetch?url=`."""
    from urllib.parse import parse_qs  # rarely needed, and slow to import

    text = parse_qs(request.target.partition("?")[2]).get("url", [""])[0]
    url = read_url(text)
    if not url:
        return request.answer(400, json.dumps({"url": text, "error": "no absolute URL given"}), as_json)
    about = proxy.about(request, peer)
    refusal = refusal_of(proxy, url)
    if not refusal:
        return request.answer(502, json.dumps({"url": text, "error": "the stand-in fetches nothing"}), as_json)
    proxy.blocked(request.method, {"url": url.shown(refusal)}, about, refusal)
    told = {"url": url.shown(refusal), "agent": about["agent"], "blocked": True, "block_reason": refusal.reason}
    return request.answer(refusal.status, json.dumps(told), as_json)
