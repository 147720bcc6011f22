"""Frames between a terminal and a launcher."""

import pytest

from claude_bottle.process import frames
from claude_bottle.process.frames import Frames


@pytest.mark.parametrize("size", [0, 1, frames.LONGEST, frames.LONGEST + 1, 3 * frames.LONGEST])
def test_data_comes_out_as_it_went_in(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    stream = b"".join((*frames.frames(frames.SHOWN, data), *frames.frames(frames.ENDED, frames.code(7))))
    taken = Frames()
    found = [frame for at in range(0, len(stream), 1000) for frame in taken.feed(stream[at : at + 1000])]
    assert b"".join(said for kind, said in found if kind == frames.SHOWN) == data
    assert found[-1] == (frames.ENDED, b"\x07")
    assert all(len(said) <= frames.LONGEST for _, said in found)


def test_a_frame_that_is_too_long_is_an_error_before_it_is_there() -> None:
    with pytest.raises(ValueError, match="too long"):
        list(Frames().feed(b"k\x00\x01\x00\x01"))


def test_sizes_and_codes() -> None:
    assert frames.read_size(frames.size(33, 101)) == (33, 101)
    assert frames.read_code(frames.code(143)) == 143
    for read in (frames.read_size, frames.read_code):
        with pytest.raises(ValueError, match="no "):
            read(b"\x00\x00\x00")
