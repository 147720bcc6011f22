"""Manifests checked without anything else."""

from tests.support.scene import Scene


def test_check_tells_every_fault_by_its_place(scene: Scene) -> None:
    (scene.agents / "bottles" / "wide.yaml").write_text("egress:\n  alow: [github.com]\n")
    (scene.agents / "writer.yaml").write_text("bottle: wide\nskils: []\n")
    code, out, err = scene.run("check")
    assert (code, out) == (64, "")
    bottle, agent = scene.agents / "bottles" / "wide.yaml", scene.agents / "writer.yaml"
    assert [line[: line.index(": ")] for line in err.splitlines()] == [f"{agent}:2:1", f"{bottle}:2:3"]
    assert scene.run("check", "demo") == (0, "1 agent checked, no errors found\n", "")
    assert scene.run("check", "writer") == (64, "", err)


def test_check_notes_who_reads_a_secret_and_what_a_signed_host_cannot_do(scene: Scene) -> None:
    text = """\
env: {A: "${KEY}", B: "${KEY}", C: x, D: {placeholder: true}}
credentials:
  - {host: a.test, header: {X: "${KEY}"}}
  - {host: "b.test:8443", basic: {user: u, password: "${KEY}"}}
"""
    (scene.agents / "bottles" / "default.yaml").write_text(text)
    (scene.agents / "second.yaml").write_text("description: With the same bottle\n")
    code, out, err = scene.run("check", KEY="planted")
    assert (code, out) == (0, "2 agents checked, no errors found\n")
    assert [line.removeprefix("claude-bottle: bottle default: ") for line in err.splitlines()] == [
        'the agent can read A, B; "credentials" keeps a secret outside',
        "WebSocket and gRPC do not work with hosts that have credentials: a.test, b.test:8443",
    ]


def test_check_notes_what_is_not_limited(scene: Scene) -> None:
    (scene.agents / "bottles" / "default.yaml").write_text("limits: {pids: none, cpus: none}\n")
    code, _, err = scene.run("check")
    assert (code, err) == (0, "claude-bottle: bottle default: not limited: cpus, pids\n")
