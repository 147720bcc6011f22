"""What a program has switched on in its terminal, for a terminal that joins later, or leaves before its end. Pure."""

import re

# A control sequence (CSI), a string (OSC, DCS, SOS, PM, APC), another escape.
_CODE = re.compile(
    rb"\x1b\[(?P<mark>[<=>?]?)(?P<numbers>[0-9;:]*)(?P<between>[ -/]*)(?P<final>[@-~])"
    rb"|\x1b\](?P<title>[012];[^\x07\x1b]*)(?:\x07|\x1b\\)"
    rb"|\x1b[]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"
    rb"|\x1b[ -/]*(?P<escape>[0-OQ-WYZ\\`-~])"
)
_LONGEST = 4096  # bytes of a code; of a longer one, such as a text for the clipboard, the end is taken for text
_ON_AT_FIRST = ("7", "25")  # line wrap, the cursor
_ALTERNATE = "1049"
_BRIEF = "2026"  # output held back until the whole frame is there
_MOST = 64  # modes; a program that switches more has others in mind than to show something
_TITLE = 256  # bytes
_PLAIN = b"\x1b(B\x0f\x1b[0m"  # letters are letters, without colours


class Modes:
    """The modes of one terminal; numbers are those of xterm's ctlseqs and of kitty's keyboard protocol."""

    def __init__(self) -> None:
        """Begin with those of a new terminal."""
        self._rest = b""  # the beginning of a code
        self._private: dict[str, bool] = {}
        self._other: dict[bytes, tuple[bytes, bytes]] = {}  # by kind: what switches it on, and off again
        self._keyboard: list[int] = []
        self._keys = 0  # of the keyboard, below all that is pushed

    def feed(self, data: bytes) -> None:
        """Take what the terminal gets."""
        data, at = self._rest + data, 0
        self._rest = b""
        while (at := data.find(b"\x1b", at)) >= 0:
            if match := _CODE.match(data, at):
                self._obey(match)
                at = match.end()
            elif len(data) - at < _LONGEST:
                self._rest = data[at:]
                return
            else:
                at += 1

    def on(self) -> bytes:
        """Return what brings a new terminal to these modes."""
        switched = [self._switch(mode, on=on) for mode, on in self._changed() if mode != _BRIEF]
        keyboard = [b"\x1b[=%d;1u" % self._keys] if self._keys else []
        pushed = [b"\x1b[>%du" % flags for flags in self._keyboard]
        return b"".join((*switched, *(on for on, _ in self._other.values()), *keyboard, *pushed))

    def off(self) -> bytes:
        """Return what brings a terminal of these modes to those of a new one."""
        popped = [b"\x1b[<%du" % len(self._keyboard)] if self._keyboard else []
        keyboard = [b"\x1b[=0;1u"] if self._keys else []
        others = [off for _, off in self._other.values()]
        # The screen of before last: some modes belong to the one that is shown.
        switched = [self._switch(mode, on=not on) for mode, on in reversed(self._changed())]
        return b"".join((*popped, *keyboard, *others, *switched, _PLAIN))

    @property
    def has_own_screen(self) -> bool:
        """Return whether the shell's screen, and its cursor, are shown again once these modes are off."""
        return self._private.get(_ALTERNATE, False)

    def _changed(self) -> list[tuple[str, bool]]:
        return [(mode, on) for mode, on in self._private.items() if on != (mode in _ON_AT_FIRST)]

    @staticmethod
    def _switch(mode: str, *, on: bool) -> bytes:
        return f"\x1b[?{mode}{'h' if on else 'l'}".encode()

    def _obey(self, code: re.Match[bytes]) -> None:
        if code["final"]:
            self._sequence(code["mark"], code["numbers"].decode(), code["between"] + code["final"])
        elif code["title"]:
            if len(code["title"]) <= _TITLE:
                self._other[b"title"] = (b"\x1b]%s\x07" % code["title"], b"")
        elif code["escape"] == b"=":
            self._other[b"keypad"] = (b"\x1b=", b"\x1b>")
        elif code["escape"] == b">":
            self._other.pop(b"keypad", None)
        elif code["escape"] == b"c":  # all as it was at first
            self.__init__()  # type: ignore[misc]

    def _sequence(self, mark: bytes, numbers: str, final: bytes) -> None:
        if mark == b"?" and final in (b"h", b"l"):
            for mode in filter(str.isdecimal, numbers.split(";")):
                self._private.pop(mode, None)  # the latest comes last
                if len(mode) <= 5 and len(self._private) < _MOST:
                    self._private[mode] = final == b"h"
        elif final == b"u" and mark in (b"<", b"=", b">"):
            self._extended_keys(mark, [int(part) if part.isdecimal() else 0 for part in numbers[:32].split(";")])
        elif mark == b">" and final == b"m" and numbers.startswith("4;"):
            self._other[b"keys"] = (b"\x1b[>%sm" % numbers[:8].encode(), b"\x1b[>4m")
        elif mark == b">" and final == b"m":
            self._other.pop(b"keys", None)
        elif final == b" q" and not mark:
            self._other[b"cursor"] = (b"\x1b[%s q" % numbers[:2].encode(), b"\x1b[0 q")

    def _extended_keys(self, mark: bytes, numbers: list[int]) -> None:
        """Follow kitty's keyboard protocol: flags pushed, popped, or changed."""
        flags, how = numbers[0] & 0x1F, (*numbers, 1)[1]
        if mark == b">":
            self._keyboard = [*self._keyboard, flags][-_MOST:]
        elif mark == b"<":
            del self._keyboard[max(0, len(self._keyboard) - max(numbers[0], 1)) :]
        else:
            now = self._keyboard[-1] if self._keyboard else self._keys
            new = {1: flags, 2: now | flags, 3: now & ~flags}.get(how, now)
            if self._keyboard:
                self._keyboard[-1] = new
            else:
                self._keys = new
