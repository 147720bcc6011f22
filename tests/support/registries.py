"""The way to package registries in the test world, which has none of its own."""

import contextlib
import secrets
import socket
import subprocess
from collections.abc import Iterable, Iterator

from tests.support.sessions import docker
from tests.world import World

#: reads where each name's connections go; has nothing else of TLS than the name at its beginning
_NGINX = """
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
user root;
events {}
stream {
    map $ssl_preread_server_name $there { hostnames; %s }
    server { listen 443; ssl_preread on; proxy_pass $there; }
}
"""
_START = "cat > /relay.conf && nginx -c /relay.conf && echo listening && exec sleep infinity"


@contextlib.contextmanager
def relayed(world: World, image: str, hosts: Iterable[str]) -> Iterator[None]:
    """Have `hosts` answer on the world's network: their TLS is passed on, unopened, to where this machine finds them.

    `image` has nginx. A host that has no address on this machine has none there either, which fails the tool that needs
    it: Go's sums may come through its proxy.
    """
    places = {host: address for host in sorted(set(hosts)) for address in _addresses(host)[:1]}
    name = f"claude-bottle-relay-{secrets.token_hex(4)}"
    run = ("docker", "run", "--rm", "--interactive", "--name", name, "--pull", "never", "--init", "--user", "0")
    aliases = (word for host in places for word in ("--alias", host))
    argv = (*run, "--entrypoint", "/bin/sh", image, "-c", _START)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as relay:
        try:
            assert relay.stdin
            assert relay.stdout
            relay.stdin.write((_NGINX % " ".join(f"{host} {places[host]}:443;" for host in places)).encode())
            relay.stdin.close()
            assert relay.stdout.readline() == b"listening\n"
            docker("network", "connect", *aliases, world.network, name)
            yield
        finally:
            docker("rm", "--force", "--volumes", name)


def _addresses(host: str) -> list[str]:
    try:
        return socket.gethostbyname_ex(host)[2]
    except socket.gaierror:
        return []
