"""The picture of a session: what a terminal would show of the bytes, and how the SVG says it."""

from xml.etree import ElementTree as ET

import pytest

from tests.picture.record import ROWS, screens
from tests.picture.svg import GROUND, HEIGHT, MARGIN, PALETTE, TEXT, WIDTH, svg

NAME = "{http://www.w3.org/2000/svg}"


def drawn(raw: bytes, kind: str = "text") -> list[dict[str, str]]:
    """Return the elements of one kind in the picture of a terminal that got `raw`, their text as "text"."""
    root = ET.fromstring(svg(screens(raw), "a < b"))
    return [dict(one.attrib) | {"text": one.text or ""} for one in root.iter(NAME + kind)]


def test_text_is_what_it_was() -> None:
    assert [one["text"] for one in drawn(b"<a href=\"x\"> & 'y' ]]>\r\n  two  words  ")] == [
        "<a href=\"x\"> & 'y' ]]>",
        "two  words",
    ]
    assert drawn(b"", "title")[0]["text"] == "a < b"


def test_text_stands_in_its_cells() -> None:
    (one,) = drawn("\r\n  世界 é".encode())
    assert float(one["x"]) == MARGIN + 2 * WIDTH
    assert MARGIN + HEIGHT < float(one["y"]) < MARGIN + 2 * HEIGHT
    assert float(one["textLength"]) == pytest.approx(6 * WIDTH)


@pytest.mark.parametrize(
    ("code", "fill"),
    [("0", None), ("32", PALETTE["green"]), ("91", PALETTE["brightred"]), ("38;2;1;2;254", "#0102fe"), ("7", GROUND)],
)
def test_colour(code: str, fill: str | None) -> None:
    (one,) = drawn(f"\x1b[{code}mx".encode())
    assert one.get("fill") == fill


def test_every_name_of_a_colour_is_known() -> None:
    codes = [*range(30, 38), *range(40, 48), *range(90, 98), *range(100, 108)]
    raw = "".join(f"\x1b[0;{code}mx" for code in codes).encode()
    used = {one["fill"] for kind in ("text", "rect") for one in drawn(raw, kind) if "fill" in one}
    assert used <= {*PALETTE.values(), GROUND}


def test_ground_lies_under_the_text() -> None:
    _, ground = drawn(b"ab\x1b[44mcd", "rect")
    assert ground["fill"] == PALETTE["blue"]
    assert float(ground["x"]) == pytest.approx(MARGIN + 2 * WIDTH)
    assert float(ground["width"]) == pytest.approx(2 * WIDTH)
    assert drawn(b"\x1b[7mx", "rect")[1]["fill"] == TEXT


def test_attributes() -> None:
    (one,) = drawn(b"\x1b[1;3;4mx")
    assert (one["font-weight"], one["font-style"], one["text-decoration"]) == ("bold", "italic", "underline")


def test_alternate_screen_is_one_of_its_own() -> None:
    shown = screens(b"before\x1b[?1049h\x1b[2J\x1b[Hinside\x1b[>0q\x1b[<u\x1b[?1049lafter")
    assert [screen.display[0].rstrip() for screen in shown] == ["before", "inside", "after"]


def test_empty_rows_at_the_end_take_no_room() -> None:
    root = ET.fromstring(svg(screens(b"one\x1b[?1049htwo"), "x"))
    height = float(root.attrib["viewBox"].split()[-1])
    assert height == 2 * MARGIN + 3 * HEIGHT < ROWS * HEIGHT
