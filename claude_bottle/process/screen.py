"""What a terminal shows, rebuilt from the bytes that it gets: as much of a terminal as reading a text back needs. Pure.

Known are the codes that put text somewhere or erase it. All others are skipped, also that of the alternate screen: its
text stays here after a program has left it.
"""

import codecs
import re
import unicodedata

Size = tuple[int, int]  # rows and columns

# A control sequence (CSI), a string (OSC, DCS, SOS, PM, APC), another escape, a control character.
_CODE = re.compile(
    r"\x1b\[(?P<parameters>[0-?]*)[ -/]*(?P<final>[@-~])"
    r"|\x1b[]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"
    r"|\x1b[ -/]*(?P<escape>[0-OQ-WYZ\\`-~])"
    r"|(?P<control>[\x00-\x1a\x1c-\x1f\x7f])"
)
_SAME = {"\r": "G", "\b": "D", "M": "A", "7": "s", "8": "u"}  # as control sequences
_DOWN = ("\n", "\x0b", "\x0c", "D", "E")
_LONGEST = 1 << 16  # characters of a code; one that does not end before is shown


class Screen:
    """The lines of a terminal, those that have left it at the top included."""

    def __init__(self) -> None:
        """Begin with an empty screen."""
        self.columns = 80
        self._rows = 24
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""  # the beginning of a code
        self._lines: list[list[str]] = [[]]
        self._top = self._row = self._column = 0  # the first visible line, and the cursor
        self._saved = (0, 0)

    @property
    def lines(self) -> list[str]:
        """Return all lines, without the spaces at their ends."""
        return ["".join(line).rstrip() for line in self._lines]

    def feed(self, data: bytes, size: Size) -> None:
        """Take what the terminal gets, which has this size at that moment."""
        self._rows, self.columns = (max(each, 1) for each in size)
        text, at = self._rest + self._decoder.decode(data), 0
        while at < len(text):
            if match := _CODE.match(text, at):
                self._obey(match)
                at = match.end()
            elif text[at] == "\x1b" and len(text) - at < _LONGEST:
                break
            else:
                self._put(text[at])
                at += 1
        self._rest = text[at:]

    def _put(self, character: str) -> None:
        if unicodedata.combining(character):
            return
        width = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        # A full line is continued on the next one only once another character comes.
        if self._column + width > self.columns:
            self._column = 0
            self._down()
        line = self._lines[self._row]
        line += " " * (self._column - len(line))
        line[self._column : self._column + width] = [character, ""][:width]
        self._column += width

    def _down(self) -> None:
        self._row += 1
        self._top = max(self._top, self._row - self._rows + 1)
        self._fill()

    def _go(self, row: int, column: int) -> None:
        """Put the cursor somewhere on the visible lines."""
        self._row = min(max(row, self._top), self._top + self._rows - 1)
        self._column = min(max(column, 0), self.columns - 1)
        self._fill()

    def _fill(self) -> None:
        self._lines += [[] for _ in range(self._row + 1 - len(self._lines))]

    def _obey(self, code: re.Match[str]) -> None:
        what = code["control"] or code["escape"] or ""
        if code["final"]:
            self._sequence(code["parameters"], code["final"])
        elif what in _SAME:
            self._sequence("", _SAME[what])
        elif what in _DOWN:
            self._down()
            self._column = 0 if what == "E" else self._column
        elif what == "\t":
            self._go(self._row, (self._column // 8 + 1) * 8)

    def _sequence(self, parameters: str, final: str) -> None:
        if parameters.startswith(("<", "=", ">", "?")):
            return  # modes and queries
        numbers = [int(part) if part.isdecimal() else 0 for part in parameters.split(";")]
        row, column, count = self._row, min(self._column, self.columns - 1), max(numbers[0], 1)
        down, right, below = row + count, column + count, self._top + count - 1
        up, left, place = row - count, column - count, (below, (*numbers, 0)[1] - 1)
        moves = {
            "A": (up, column), "B": (down, column), "C": (row, right), "D": (row, left), "E": (down, 0), "F": (up, 0),
            "G": (row, count - 1), "`": (row, count - 1), "d": (below, column), "H": place, "f": place,
            "u": self._saved,
        }  # fmt: skip
        if final in moves:
            self._go(*moves[final])
        elif final == "s":
            self._saved = (row, column)
        elif final in ("J", "K") and numbers[0] in (0, 1, 2):
            self._erase(numbers[0], whole=final == "J")
        elif final == "X":
            line = self._lines[row]
            line[column : column + count] = " " * len(line[column : column + count])

    def _erase(self, how: int, *, whole: bool) -> None:
        """Erase what comes after the cursor (0), before it (1) or both (2): of its line, or of the `whole` screen."""
        line, end = self._lines[self._row], self._column + 1
        if how == 1:
            line[:end] = " " * min(end, len(line))
        else:
            del line[self._column if how == 0 else 0 :]
        if whole:
            first, last = (self._row if how == 0 else self._top), (self._row if how == 1 else len(self._lines))
            for each in self._lines[first:last]:
                if each is not line:
                    each.clear()
