"""debian:bookworm-slim, made with debootstrap: no image registry is asked."""

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tests.world import apt
from tests.world.shell import PATH, WorldError, attempt, need_root, run, say, which

IMAGE = "debian:bookworm-slim"
SUITE = "bookworm"
MACHINE_CERTIFICATES = Path("/usr/local/share/ca-certificates")
UNWANTED = ("doc", "info", "lintian", "linda", "locale", "man")

DPKG = "".join(f"path-exclude /usr/share/{name}/*\n" for name in UNWANTED)
APT = """\
APT::Install-Recommends "false";
Acquire::Languages "none";
Acquire::GzipIndexes "true";
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin || true"; };
"""
POLICY = "#!/bin/sh\nexit 101\n"


def ensure() -> None:
    """Make the image, unless the engine has one of this name, whoever made it."""
    if attempt("docker", "image", "inspect", IMAGE).returncode == 0:
        say(f"{IMAGE} is there")
        return
    need_root(f"there is no {IMAGE}: pull it, or have it made from Debian's packages")
    if not which("debootstrap"):
        apt.install("debootstrap")
    say(f"making {IMAGE} with debootstrap, a minute or two")
    with tempfile.TemporaryDirectory(prefix="claude-bottle-world-") as folder:
        root = Path(folder, "root")
        _fill(root)
        _trim(root)
        _import(root)
    say(f"made {IMAGE}")


def _fill(root: Path) -> None:
    mirror = apt.mirror("Debian")
    if mirror is None:
        raise WorldError("this machine's apt has no source of Debian packages")
    run("debootstrap", "--variant=minbase", "--include=ca-certificates", SUITE, str(root), mirror)
    (root / "etc/dpkg/dpkg.cfg.d/docker").write_text(DPKG)
    (root / "etc/apt/apt.conf.d/docker").write_text(APT)
    (root / "etc/apt/sources.list").write_text(_sources(mirror, apt.mirror("Debian-Security")))
    (root / "usr/sbin/policy-rc.d").write_text(POLICY)
    (root / "usr/sbin/policy-rc.d").chmod(0o755)
    _trust(root)


def _sources(mirror: str, security: str | None) -> str:
    lines = [f"deb {mirror} {SUITE} main", f"deb {mirror} {SUITE}-updates main"]
    lines += [f"deb {security} {SUITE}-security main"] if security else []
    return "\n".join((*lines, ""))


def _trust(root: Path) -> None:
    """Trust what this machine trusts: behind a proxy that re-signs TLS a build could fetch nothing else."""
    for certificate in sorted(MACHINE_CERTIFICATES.glob("*.crt")):
        shutil.copy(certificate, root / "usr/local/share/ca-certificates" / certificate.name)
    run("chroot", str(root), "update-ca-certificates")


def _trim(root: Path) -> None:
    for folder in (*(f"usr/share/{name}" for name in UNWANTED), "var/lib/apt/lists", "var/cache/apt", "var/log"):
        for path in (root / folder).rglob("*"):
            if not path.is_dir():
                path.unlink()
    for name in ("hostname", "resolv.conf"):  # debootstrap copies this machine's
        (root / "etc" / name).unlink(missing_ok=True)


def _import(root: Path) -> None:
    """Stream the tree into the engine; nothing of this machine's /dev, /proc or /sys is in it."""
    with subprocess.Popen(("tar", "-C", str(root), "--numeric-owner", "-c", "."), stdout=subprocess.PIPE) as tar:
        imported = subprocess.run(
            ("docker", "import", "--change", 'CMD ["bash"]', "-", IMAGE),
            check=False, stdin=tar.stdout, capture_output=True, env=os.environ | {"PATH": PATH},
        )  # fmt: skip
    if imported.returncode or tar.returncode:
        raise WorldError(f"docker import failed: {imported.stderr.decode(errors='replace').strip()}")


def built(name: str, dockerfile: bytes) -> str:
    """Return an image's tag, which tells what it is built from; build it if it is not there."""
    tag = f"{name}:{hashlib.sha256(dockerfile).hexdigest()[:12]}"
    if attempt("docker", "image", "inspect", tag).returncode != 0:
        run("docker", "build", "--force-rm", "--tag", tag, "-", stdin=dockerfile)
        say(f"built {tag}")
    return tag


def packed(files: dict[str, bytes], uid: int) -> bytes:
    """Pack files that only `uid` may read into a tar stream."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.uid, info.gid, info.mode = len(content), uid, uid, 0o400
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()
