"""A throwaway certificate authority and one server certificate, made with openssl."""

import os
import shutil
import tempfile
from pathlib import Path

from tests.world import apt
from tests.world.shell import attempt, run, say, which

DAYS = 90
RENEW_SECONDS = 7 * 86400
CA, CERTIFICATE, KEY = "ca.pem", "server.pem", "server.key"

CONFIG = """\
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = {names}
"""


def cache() -> Path:
    """Return the private folder, outside any checkout, where the test world keeps its files."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "claude-bottle-world"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def ensure(hosts: tuple[str, ...]) -> Path:
    """Return the folder with CA, CERTIFICATE (for `hosts`) and KEY, made anew where absent or about to end."""
    if not which("openssl"):
        apt.install("openssl")
    folder, config = cache() / "tls", _config(hosts)
    if _good(folder, config):
        return folder
    with tempfile.TemporaryDirectory(dir=cache()) as made:
        make(Path(made), hosts)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(made, folder)
    say(f"made a throwaway certificate authority in {folder}")
    return folder


def served(folder: Path) -> dict[str, bytes]:
    """Return the files that a server loads, by name."""
    return {name: (folder / name).read_bytes() for name in (CERTIFICATE, KEY)}


def _good(folder: Path, config: str) -> bool:
    made_from = folder / "openssl.cnf"
    if not made_from.exists() or made_from.read_text() != config:
        return False
    end = ("openssl", "x509", "-checkend", str(RENEW_SECONDS), "-noout", "-in")
    return all(attempt(*end, str(folder / name)).returncode == 0 for name in (CA, CERTIFICATE))


def _config(hosts: tuple[str, ...]) -> str:
    return CONFIG.format(names=", ".join(f"DNS:{host}" for host in hosts))


def make(folder: Path, hosts: tuple[str, ...]) -> None:
    """Make CA, CERTIFICATE (for `hosts`) and KEY in `folder`."""
    made_from = folder / "openssl.cnf"
    made_from.write_text(_config(hosts))
    new = ("openssl", "req", "-x509", "-config", str(made_from), "-days", str(DAYS), "-nodes",
           "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")  # fmt: skip
    ca, ca_key = str(folder / CA), str(folder / "ca.key")
    run(*new, "-extensions", "ca", "-subj", "/CN=claude-bottle test world", "-out", ca, "-keyout", ca_key)
    run(*new, "-extensions", "server", "-subj", "/CN=stand-in for Anthropic", "-CA", ca, "-CAkey", ca_key,
        "-out", str(folder / CERTIFICATE), "-keyout", str(folder / KEY))  # fmt: skip
