"""The way to package registries in the test world, which has none of its own."""

import base64
import contextlib
import hashlib
import io
import json
import secrets
import socket
import subprocess
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tests.support.sessions import docker
from tests.world import World, certificates

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
#: serves files, each under its own path, and a folder's index.html or package.json as the folder
_MIRROR = """
user root;
events {}
http {
    types { text/html html; application/json json; }
    default_type application/octet-stream;
    server {
        listen %d ssl;
        ssl_certificate /mirror/server.pem;
        ssl_certificate_key /mirror/server.key;
        root /mirror/files;
        location / { try_files $uri $uri/index.html $uri/package.json =404; }
    }
}
"""
_SERVE = "tar -x -C / && nginx -c /mirror/nginx.conf && echo listening && exec sleep infinity"
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


@contextlib.contextmanager
def mirrored(world: World, image: str, url: str, files: Mapping[str, bytes], folder: Path) -> Iterator[Path]:
    """Have a server of `files`, by their paths, answer at a URL's host and port; yield the authority that it is of.

    Its certificate is made in `folder`, for a name that is nobody's; `image` has nginx.
    """
    host, _, port = url.removeprefix("https://").partition("/")[0].partition(":")
    folder.mkdir()
    certificates.make(folder, (host,))
    own = {name: (folder / name).read_bytes() for name in (certificates.CERTIFICATE, certificates.KEY)}
    own["nginx.conf"] = (_MIRROR % int(port or 443)).encode()
    tar = _tar({f"mirror/{name}": data for name, data in (*own.items(), *((f"files{n}", d) for n, d in files.items()))})
    name = f"claude-bottle-mirror-{secrets.token_hex(4)}"
    run = ("docker", "run", "--rm", "--interactive", "--name", name, "--pull", "never", "--init", "--user", "0")
    argv = (*run, "--network", world.network, "--network-alias", host, "--entrypoint", "/bin/sh", image, "-c", _SERVE)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdin
            assert server.stdout
            server.stdin.write(tar)
            server.stdin.close()
            assert server.stdout.readline() == b"listening\n"
            yield folder / certificates.CA
        finally:
            docker("rm", "--force", "--volumes", name)


def npm_package(url: str, name: str, code: str) -> dict[str, bytes]:
    """Return what a registry at a URL serves of a package whose one module is `code`, by path."""
    described = {"name": name, "version": "1.0.0", "main": "index.js"}
    ball = _tar({"package/package.json": json.dumps(described).encode(), "package/index.js": code.encode()}, "w:gz")
    whole = f"sha512-{base64.b64encode(hashlib.sha512(ball).digest()).decode()}"
    one = {**described, "dist": {"tarball": f"{url}/{name}/-/{name}-1.0.0.tgz", "integrity": whole}}
    about = {"name": name, "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": one}}
    path = _path(url)
    return {f"{path}/{name}/package.json": json.dumps(about).encode(), f"{path}/{name}/-/{name}-1.0.0.tgz": ball}


def wheel(url: str, name: str, code: str) -> dict[str, bytes]:
    """Return what an index at a URL serves of a package whose one module is `code`, by path."""
    buffer, file, info = io.BytesIO(), f"{name}-1.0.0-py3-none-any.whl", f"{name}-1.0.0.dist-info"
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"{name}.py", code)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    page = f"<!DOCTYPE html><html><body><a href='{file}'>{file}</a></body></html>".encode()
    path = f"{_path(url)}/{name}"
    return {f"{path}/index.html": page, f"{path}/{file}": buffer.getvalue()}


def _path(url: str) -> str:
    return f"/{url.removeprefix('https://').partition('/')[2]}".rstrip("/")


def _tar(files: Mapping[str, bytes], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:  # type: ignore[call-overload]  # the modes are known
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def _addresses(host: str) -> list[str]:
    try:
        return socket.gethostbyname_ex(host)[2]
    except socket.gaierror:
        return []
