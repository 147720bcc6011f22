"""YAML to data with positions."""

import os
from pathlib import Path

import pytest

from claude_bottle.documents import yaml_document


def load(folder: Path, raw: bytes) -> yaml_document.Document:
    file = folder / "x.yaml"
    file.write_bytes(raw)
    return yaml_document.load(file)


def test_every_part_knows_where_it_stands(tmp_path: Path) -> None:
    document = load(tmp_path, b"\xef\xbb\xbfa: 1\r\nb:\r\n  - x\r\n  - {c: {c: 2.5}}\r\n")
    assert document.data == {"a": 1, "b": ["x", {"c": {"c": 2.5}}]}
    assert document.where(()) == (1, 1)
    assert document.where(("a",)) == (1, 4)
    assert document.where(("a",), key=True) == (1, 1)
    assert document.where(("b", 0)) == (3, 5)
    assert document.where(("b", 1, "c", "c")) == (4, 13)
    assert document.where(("b", 1, "c", "c"), key=True) == (4, 10)
    assert document.where(("b", 7, "none")) == (3, 3), "what does not exist stands where its parent does"


def test_scalars_are_those_of_yaml_1_2_and_keys_are_text(tmp_path: Path) -> None:
    document = load(tmp_path, b"1: yes\ntrue: 22:22\na: 2020-01-01\nb: 0x10\nc: true\nd: ~\ne: 1e3\n")
    assert document.data == {
        "1": "yes", "true": "22:22", "a": "2020-01-01", "b": 16, "c": True, "d": None, "e": 1000.0,
    }  # fmt: skip
    assert load(tmp_path, b"# nothing\n").data is None


def test_a_key_that_repeats_another_is_told_and_not_used(tmp_path: Path) -> None:
    document = load(tmp_path, b"a: 1\nb: {c: 1, c: 2}\na: 3\n")
    assert document.data == {"a": 1, "b": {"c": 1}}
    assert [(twice.line, twice.column) for twice in document.duplicates] == [(2, 11), (3, 1)]


@pytest.mark.parametrize(
    ("raw", "line", "column", "message"),
    [
        (b"a: b: c\n", 1, 5, "mapping values are not allowed here"),
        (b"a: 1\nb: [\n", 3, 1, "not YAML"),
        (b"a: 1\n---\nb: 2\n", 2, 1, "another document"),
        (b"a: 1\nb: \xff\n", 2, 4, "is not UTF-8 text"),
        (b"a: 1\nb: \x01\n", 2, 4, "a character that YAML does not allow"),
        (b'a: "\\ud800"\n', 1, 4, "half a character"),
        (b"a: *nope\n", 1, 4, '* has a meaning in YAML: quote it, as in "*nope"'),
        (b"a: [b.com, *.example.com, c.com]\n", 1, 12, '* has a meaning in YAML: quote it, as in "*.example.com"'),
        (b"a:\n  - *.example.com:8443\n", 2, 5, '* has a meaning in YAML: quote it, as in "*.example.com:8443"'),
        (b"a: *\n", 1, 4, '* has a meaning in YAML: quote it, as in "*"'),
        (b"a: @b\n", 1, 4, '@ has a meaning in YAML: quote it, as in "@b"'),
        (b"a: `b`\n", 1, 4, '` has a meaning in YAML: quote it, as in "`b`"'),
        (b"a: %b\n", 1, 4, '% has a meaning in YAML: quote it, as in "%b"'),
        (b"a: &a [*a]\n", 1, 4, "an alias that contains itself"),
        (b"a: &a {b: 1}\nc: {<<: *a}\n", 2, 5, "a key must be plain text"),
        (b"? [a]\n: b\n", 1, 3, "a key must be plain text"),
        (b"a: !secret x\n", 1, 4, "is not supported"),
        (b"a: !!int x\n", 1, 4, "is not a valid value"),
        (b"a: " + b"9" * 5000, 1, 4, "is not a valid value"),
        (b"[" * 600, 1, 1, "nested too deeply"),
        (b"[" * 30_000, 1, 1, "more than 20,000 lines and values"),
        (b"a: [" + b"x," * 30_000 + b"]", 1, 1, "more than 20,000 lines and values"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(
    tmp_path: Path, raw: bytes, line: int, column: int, message: str
) -> None:
    with pytest.raises(yaml_document.YamlError) as raised:
        load(tmp_path, raw)
    assert (raised.value.line, raised.value.column) == (line, column)
    assert message in raised.value.message
    assert "\n" not in raised.value.message


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(yaml_document.YamlError, match=r"^cannot be read: No such file or directory$"):
        yaml_document.load(tmp_path / "none.yaml")


def test_aliases_that_multiply_cost_nothing(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40)]
    document = load(tmp_path, "\n".join(lines).encode())
    assert isinstance(document.data, dict)
    assert document.where(("a39", 0, 0)) == (38, 6), "an alias leads to where its anchor stands"


def test_a_manifest_of_more_than_a_mebibyte_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.touch()
    os.truncate(file, 3 << 30)  # sparse: read, it would fill the memory
    with pytest.raises(yaml_document.YamlError, match=r"^cannot be read: larger than 1 MiB$"):
        yaml_document.load(file)


def test_the_place_of_each_of_many_keys_is_found_at_once(tmp_path: Path) -> None:
    keys = [f"k{number}" for number in range(9_000)]
    document = load(tmp_path, "".join(f"{key}: 1\n" for key in keys).encode())
    assert [document.where((key,), key=True) for key in keys] == [(line, 1) for line in range(1, len(keys) + 1)]
