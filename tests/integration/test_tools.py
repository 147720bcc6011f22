"""The tools that must trust a bottle's `ca_certs`: each makes a real request through the proxy, and fails without.

The same tools use a credential, which the credential proxy sets, without knowing of it.
"""

import base64
import hashlib
import io
import json
import re
import secrets
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sessions import Bench, docker
from tests.world import World, api, certificates
from tests.world.base import built

TOOLS = Path(__file__).parents[1] / "support" / "tools"
HOST = "tools.test"
URL = f"https://{HOST}"
WORD = "it was fetched"
REFUSED = re.compile(r"certificate|CERT_|unknown issuer|UnknownIssuer", re.IGNORECASE)

# On one worker: the servers of two tests would have one name on the world's network, and two authorities.
pytestmark = pytest.mark.xdist_group("tools")


def _install(command: str) -> str:
    return f"npm init --yes > /dev/null && {command} --registry {URL}/npm/ thing && cat node_modules/thing/word"


_NODE = "NODE_USE_ENV_PROXY=1 node -e"
#: of each tool: a command that fails if its request does, and says WORD if it does not
COMMANDS = {
    "curl": f"curl --silent --show-error --fail {URL}/word",
    "wget": f"wget --tries 1 --output-document - {URL}/word",
    "git": f"git clone {URL}/repo.git r && cat r/word",
    "openssl": f"printf 'GET /word HTTP/1.0\r\nHost: {HOST}\r\n\r\n' | openssl s_client -quiet -verify_return_error"
    f" -ignore_unexpected_eof -proxy pipelock:8888 -connect {HOST}:443 -servername {HOST}",
    "urllib": f"python3 -c 'import urllib.request as r; print(r.urlopen(\"{URL}/word\").read())'",
    "requests": f"python3 -c 'import requests as r; print(r.get(\"{URL}/word\").text)'",
    "httpx": f"python3 -c 'import httpx as r; print(r.get(\"{URL}/word\").text)'",
    "httplib2": f"python3 -c 'import httplib2 as r; print(r.Http().request(\"{URL}/word\")[1])'",
    "pip": f"pip install --retries 0 --no-cache-dir --target . --index-url {URL}/pip/ thing && cat word",
    "uv": f"uv pip install --no-cache --target . --index-url {URL}/pip/ thing && cat word",
    "node-https": f'{_NODE} \'require("https").get("{URL}/word", r => r.pipe(process.stdout))\'',
    "node-fetch": f"{_NODE} 'fetch(\"{URL}/word\").then(r => r.text()).then(console.log)'",
    "npm": _install("npm install --fetch-retries 0"),
    "pnpm": _install("npm_config_fetch_retries=0 pnpm add"),
    "yarn": _install("yarn add"),
    "perl": f'perl -MLWP::UserAgent -e \'$r = LWP::UserAgent->new(env_proxy => 1)->get("{URL}/word");'
    " print $r->decoded_content; exit !$r->is_success'",
    "ruby": f"ruby -ropen-uri -e 'puts URI.open(\"{URL}/word\").read'",
}


@pytest.fixture
def authority(world: World, tmp_path: Path) -> Iterator[Path]:
    """A server of the world's network with the packages of some registries; yield its own authority's certificate."""
    folder, name = tmp_path / "server", f"claude-bottle-tools-{secrets.token_hex(4)}"
    folder.mkdir()
    certificates.make(folder, (HOST,))
    shutil.copy(TOOLS / "server.py", folder)
    _files(folder / "files")
    with io.BytesIO() as stream:
        with tarfile.open(fileobj=stream, mode="w") as tar:
            tar.add(folder, ".", filter=_readable)
        content = stream.getvalue()
    image = built(api.CONTAINER, api.DOCKERFILE)
    docker("create", "--name", name, "--network", world.network, f"--network-alias={HOST}", "--pull", "never", "--init",
           image, "python3", "-u", "/srv/server.py")  # fmt: skip
    try:
        docker("cp", "-", f"{name}:/srv", stdin=content)
        docker("start", name)
        with subprocess.Popen(("docker", "logs", "--follow", name), stdout=subprocess.PIPE) as logs:
            assert logs.stdout
            assert logs.stdout.readline() == b"listening\n"
            logs.kill()
        yield folder / certificates.CA
    finally:
        docker("rm", "--force", "--volumes", name)


def _readable(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.mode = 0o755 if info.isdir() else 0o644
    return info


def _files(folder: Path) -> None:
    """Write a file, a git repository, and the package `thing` for pip and npm; WORD is in each."""
    folder.mkdir()
    (folder / "word").write_text(WORD)
    _repository(folder / "repo.git")
    _wheel(folder / "pip/thing")
    _npm(folder / "npm")


def _repository(bare: Path) -> None:
    def git(*words: str) -> None:
        identity = ("-c", "user.name=A", "-c", "user.email=a@example.com")
        subprocess.run(("git", "-C", str(bare), *identity, *words), check=True, capture_output=True)

    bare.mkdir()
    git("init", "--quiet", "--initial-branch", "main")
    (bare / "word").write_text(WORD)
    git("add", "word")
    git("commit", "--quiet", "--message", "One")
    for path in (bare / ".git").iterdir():
        path.rename(bare / path.name)
    (bare / ".git").rmdir()
    git("config", "core.bare", "true")
    git("update-server-info")


def _wheel(folder: Path) -> None:
    folder.mkdir(parents=True)
    info, name = "thing-1.0.dist-info", "thing-1.0-py3-none-any.whl"
    content = {
        "word": WORD,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: none\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(folder / name, "w") as wheel:
        for path, text in content.items():
            wheel.writestr(path, text)
        wheel.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in (*content, f"{info}/RECORD")))
    (folder / "index.html").write_text(f'<!DOCTYPE html><a href="{name}">{name}</a>')


def _npm(folder: Path) -> None:
    folder.mkdir()
    package = {"name": "thing", "version": "1.0.0"}
    with io.BytesIO() as stream:
        with tarfile.open(fileobj=stream, mode="w:gz") as tar:
            for path, text in (("package/package.json", json.dumps(package)), ("package/word", WORD)):
                member = tarfile.TarInfo(path)
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text.encode()))
        content = stream.getvalue()
    (folder / "thing.tgz").write_bytes(content)
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    version = package | {"dist": {"tarball": f"{URL}/npm/thing.tgz", "integrity": integrity}}
    # Without a time pnpm takes a version for too young.
    times = {"created": "2020-01-01T00:00:00Z", "modified": "2020-01-01T00:00:00Z", "1.0.0": "2020-01-01T00:00:00Z"}
    whole = {"name": "thing", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}, "time": times}
    (folder / "thing").write_text(json.dumps(whole))


def _run(
    bench: Bench, bottle: dict[str, object], commands: dict[str, str] = COMMANDS, **environ: str
) -> dict[str, tuple[int, str]]:
    """Have a bottle run commands; return how each ended and what it said."""
    wanted = {"image": {"dockerfile": "../tools/Dockerfile"}, "egress": {"allow": [HOST]}, **bottle}
    (bench.agents / "bottles" / f"{bench.name}.yaml").write_text(json.dumps(wanted))
    ended = bench.start("--yes", "--print", json.dumps(commands), **environ)
    assert ended.code == 0, ended
    answer: dict[str, tuple[int, str]] = json.loads(ended.out)
    assert answer.keys() == COMMANDS.keys()
    return answer


def test_each_tool_trusts_what_a_bottle_trusts_and_nothing_else(bench: Bench, authority: Path) -> None:
    shutil.copytree(TOOLS, bench.agents / "tools")
    trusting, control = _run(bench, {"ca_certs": [str(authority)]}), _run(bench, {})
    failed = {name: said for name, (code, said) in trusting.items() if code != 0 or WORD not in said}
    assert failed == {}
    passed = {name: said for name, (code, said) in control.items() if code == 0 or not REFUSED.search(said)}
    assert passed == {}


def test_each_tool_uses_a_credential_without_knowing_of_it(bench: Bench, authority: Path) -> None:
    shutil.copytree(TOOLS, bench.agents / "tools")
    signed = {
        name: line.replace(f"{HOST}/", f"{HOST}/signed/").replace("GET /", "GET /signed/")
        for name, line in COMMANDS.items()
    }
    credential = {"host": HOST, "header": {"X-Word": "${WORD}"}}
    trusting: dict[str, object] = {"ca_certs": [str(authority)]}
    answer = _run(bench, {**trusting, "egress": {}, "credentials": [credential]}, signed, WORD="made-up")
    failed = {name: said for name, (code, said) in answer.items() if code != 0 or WORD not in said}
    assert failed == {}
    control = _run(bench, trusting, signed)
    assert {name: said for name, (code, said) in control.items() if WORD in said} == {}
