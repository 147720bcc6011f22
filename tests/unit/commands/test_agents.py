"""The agents, as a table."""

from tests.support.scene import Scene

OTHER = "description: Writes\nbottle: wide\n"
WIDE = "egress: {allow: [api.openai.com, github.com]}\n"


def test_agents_are_listed_with_bottle_and_egress(scene: Scene) -> None:
    (scene.agents / "bottles" / "wide.yaml").write_text(WIDE)
    (scene.agents / "writer.yaml").write_text(OTHER)
    code, out, err = scene.run("agents")
    assert (code, err) == (0, "")
    assert out == (
        "AGENT   BOTTLE   EGRESS\n"
        "demo    default  7 hosts allowed (api.anthropic.com, claude.ai, claude.com, +4 more)\n"
        "writer  wide     9 hosts allowed (api.anthropic.com, api.openai.com, claude.ai, +6 more)\n"
    )
