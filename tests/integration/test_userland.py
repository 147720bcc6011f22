"""Images that bring what would run in this launcher's stead, or along with it: refused, or harmless."""

import shutil
from pathlib import Path

import pytest

from claude_bottle.repository.clone import WORKDIR
from tests.support.matrix import Matrix, stays, write
from tests.support.sessions import CLI, PUPPET, Bench, docker

# Says that it ran, in a file that everybody may write to, and then does as it should.
TROJAN = """#!/bin/sh
echo "$0 as $(id -u)" >> /trojan
exec {instead} "$@"
"""
PREPARED = "ARG BASE_IMAGE\nFROM $BASE_IMAGE\nUSER root\nRUN touch /trojan && chmod 666 /trojan\n"


def image(bench: Bench, lines: str, **files: str) -> None:
    """Give the agent's bottle an image; the bottle has certificates as well."""
    dockerfile(bench, lines, **files)
    bench.write({"image": {"dockerfile": "../image/Dockerfile"}})


def dockerfile(bench: Bench, lines: str, **files: str) -> Path:
    """Write a Dockerfile, and trojans that run each another program; return their folder."""
    folder = bench.agents / "image"
    folder.mkdir()
    (folder / "Dockerfile").write_text(PREPARED + lines)
    for name, instead in files.items():
        (folder / name).write_text(TROJAN.format(instead=instead))
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.parametrize(
    ("lines", "files", "why"),
    [
        ("COPY env /opt/env\nENV BASH_ENV=/opt/env\n", {"env": "true"}, "the image sets BASH_ENV"),
        ("ENV LD_PRELOAD=libm.so.6\n", {}, "the image sets LD_PRELOAD"),
        ("ENV PYTHONPATH=/opt\n", {}, "the image sets PYTHONPATH"),
        ("RUN mv /usr/bin/git /opt/git\nCOPY git /usr/bin/git\n", {"git": "/opt/git"}, "/usr/bin/git is not the base"),
        ("RUN mv /bin/bash /opt/bash\nCOPY bash /bin/bash\n", {"bash": "/opt/bash"}, "bash is not the base"),
        ("RUN mv /usr/bin/env /opt/env\nCOPY env /usr/bin/env\n", {"env": "/opt/env"}, "/usr/bin/env is not the base"),
        ("RUN echo libm.so.6 > /etc/ld.so.preload\n", {}, "/etc/ld.so.preload is not the base"),
        ("RUN mv /usr/bin/tar /opt/tar\nCOPY tar /usr/bin/tar\n", {"tar": "/opt/tar"}, "/usr/bin/tar is not the base"),
    ],
    ids=["BASH_ENV", "LD_PRELOAD", "PYTHONPATH", "git", "bash", "env", "ld.so.preload", "tar"],
)  # fmt: skip
def test_an_image_whose_programs_are_not_to_be_trusted_is_refused(
    bench: Bench, lines: str, files: dict[str, str], why: str
) -> None:
    image(bench, lines, **files)
    ended = bench.start("--yes", "--print", "SAY: it runs")
    assert (ended.code, ended.out) == (66, b""), ended
    assert "nothing ran in it" in ended.err
    assert why in ended.err, ended.err


def test_what_an_image_has_first_on_its_path_does_not_run_for_the_launcher(matrix: Matrix) -> None:
    """Nor does its entrypoint, as whomever: the engine sees no process of root's."""
    bench = matrix.bench()
    write(bench, "stay")
    names = ("python3", "git", "tar", "bash", "env", "cat")
    copies = "".join(f"COPY {name} /usr/local/bin/{name}\n" for name in (*names, "entry"))
    lines = f'{copies}COPY claude.py /usr/local/bin/claude\nENTRYPOINT ["/usr/local/bin/entry"]\nUSER root\n'
    folder = dockerfile(bench, lines, entry="/bin/sh -c", **{name: f"/usr/bin/{name}" for name in names})
    shutil.copy(PUPPET / "claude.py", folder)
    bench.write({"image": {"dockerfile": "../image/Dockerfile"}}, prompt="stay", repo=str(bench.folder / "repo"))
    with bench.running("--yes") as run:
        stays(run)
        [session] = bench.sessions()
        name = f"claude-bottle-{session}"
        users = {line.split()[1] for line in docker("top", name, "-eo", "pid,uid").splitlines()[1:]}
        docker("exec", "--user", "1000:1000", name, "/usr/bin/touch", f"{WORKDIR}/new")
        fetched = bench.run((str(CLI), "fetch", session), {})
        trojans = docker("exec", "--user", "1000:1000", name, "/bin/cat", "/trojan")
    assert (fetched.code, "1 file changed" in fetched.out.decode() + fetched.err) == (0, True), fetched
    assert users == {"65532", "1000"}
    assert trojans == ""
    assert bench.left_at_last() == []


def test_a_changed_path_is_shown_as_soon_as_it_is_known(bench: Bench) -> None:
    image(bench, f"# for {bench.name} alone, so that it is not there\nENV PATH=/opt/tools:$PATH\n")
    first, second = (bench.start("--yes", "--print", "SAY: it runs") for _ in range(2))
    assert (first.code, second.code) == (0, 0), (first, second)
    shown = "  path    /opt/tools:/usr/local/sbin:"
    assert (shown in first.err, shown in second.err) == (False, True), second
