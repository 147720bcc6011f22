"""Write terminal screens as one SVG: monospaced text in runs of one look, on a ground of its own."""

from collections.abc import Sequence
from html import escape
from itertools import groupby
from typing import Any

import pyte

WIDTH, HEIGHT, MARGIN = 8.4, 18, 20  # of a cell and around all, in pixels
FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
TEXT, GROUND, LINE = "#d4d8de", "#16191d", "#5b636e"
PALETTE = {
    "black": "#3b4048", "red": "#f07178", "green": "#8fc978", "brown": "#e5c07b", "blue": "#6cb2f7",
    "magenta": "#d08ae0", "cyan": "#62c4ce", "white": "#d4d8de",
    "brightblack": "#7d8590", "brightred": "#ff8b92", "brightgreen": "#a9e394", "brightbrown": "#ffd88a",
    "brightblue": "#8cc6ff", "brightmagenta": "#e5a8f2", "brightcyan": "#85dde6", "brightwhite": "#ffffff",
}  # fmt: skip


def svg(screens: Sequence[pyte.Screen], title: str) -> str:
    """Return the screens as an SVG, one below the other, without the empty rows at their ends."""
    body, top = [], float(MARGIN)
    for number, screen in enumerate(screens):
        if number:
            body.append(f'<path d="M0 {top + HEIGHT / 2:g}H{_width(screens):g}" stroke="{LINE}"/>')
            top += HEIGHT
        rows = max((row + 1 for row, line in enumerate(screen.display) if line.strip()), default=0)
        for row in range(rows):
            body += _row(screen.buffer[row], screen.columns, top + row * HEIGHT)
        top += rows * HEIGHT
    width, height = _width(screens), top + MARGIN
    head = f'width="{width:g}" viewBox="0 0 {width:g} {height:g}" role="img" font-family="{FONT}" font-size="14"'
    frame = f'x="1" y="1" width="{width - 2:g}" height="{height - 2:g}" rx="8"'
    body = [f"<title>{escape(title)}</title>", f'<rect {frame} fill="{GROUND}" stroke="{LINE}"/>', *body]
    return "\n".join((f'<svg xmlns="http://www.w3.org/2000/svg" {head} fill="{TEXT}">', *body, "</svg>\n"))


def _width(screens: Sequence[pyte.Screen]) -> float:
    return max(screen.columns for screen in screens) * WIDTH + 2 * MARGIN


def _row(cells: Any, columns: int, top: float) -> list[str]:
    """Return the grounds and then the texts of a row, one for neighbours of one look."""
    grounds, texts = [], []
    for (colour, ground, style), run in groupby(range(columns), lambda column: _look(cells[column])):
        run_columns = list(run)
        text = "".join(cells[column].data for column in run_columns)
        left, width = MARGIN + run_columns[0] * WIDTH, len(run_columns) * WIDTH
        if ground != GROUND:
            grounds.append(f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{HEIGHT}" fill="{ground}"/>')
        if text.strip():
            left += (len(text) - len(text.lstrip())) * WIDTH
            width -= (len(text) - len(text.strip())) * WIDTH
            # The length holds the columns together in whatever font there is.
            place = f'x="{left:g}" y="{top + 0.75 * HEIGHT:g}" textLength="{width:g}" lengthAdjust="spacingAndGlyphs"'
            fill = "" if colour == TEXT else f' fill="{colour}"'
            texts.append(f'<text {place} xml:space="preserve"{fill}{style}>{escape(text.strip())}</text>')
    return grounds + texts


def _look(cell: Any) -> tuple[str, str, str]:
    """Return a cell's colour, ground, and attributes."""
    colour, ground = _colour(cell.fg, TEXT), _colour(cell.bg, GROUND)
    if cell.reverse:
        colour, ground = ground, colour
    style = ' font-weight="bold"' if cell.bold else ""
    style += ' font-style="italic"' if cell.italics else ""
    style += ' text-decoration="underline"' if cell.underscore else ""
    return colour, ground, style


def _colour(name: str, default: str) -> str:
    """Return pyte's colour, a name or six digits, as SVG has it."""
    name = name.replace("bfight", "bright")  # pyte 0.8.2 misspells one
    return default if name == "default" else PALETTE.get(name, f"#{name}")
