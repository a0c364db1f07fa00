"""Ways to spoil a file: its bytes, its text, the values of a JSON document, the cells of a table.

Each takes a valid beginning and a random generator, and leaves the beginning as it is.
"""

from __future__ import annotations

import copy
import csv
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Files = dict[str, bytes]  # the files of one input: content by path inside the folder

EXTREMES = (0, 1, -1, 2, 127, 128, 255, 256, 32767, -32768, 65535, 2**31 - 1, -(2**31), 2**63 - 1)
FLOATS = (0.0, -0.0, 1e-45, 1e38, -1e38, float("nan"), float("inf"), float("-inf"), 1.5, -1.0)

# What may stand in place of any value of a JSON document, or of a checkpoint.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 255, 100_000, 1_000_000, 2**31, -(2**31), 2**63, 10**30),
    *(0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), float("-inf")),
    *("", " ", "0", "true", "auto", "../../x", "/dev/zero", "\0", "\x1b[2J", "\n", "\ud800"),
    *("\u202egnp", "x" * 70_000, "NaN", "all", "wt", "Unet", "resnet34", "none"),
    *([], [[]], {}, {"": None}, [None], ["t1"], ["t1", "t1"], [0] * 5000, {"0": "FLAIR"}),
)
# What no value can be, only text.
_JSON_TEXTS = (
    *(b"[" * 200_000, b'{"a":' * 100_000, b"9" * 5000, b"1e400", b"-", b"NaN", b"Infinity"),
    *(b'"\\ud800"', b'"\\u0000"', b"0x10", b"1_000", b"'a'", b"", b"{}{}", b'{"a":1,"a":2}'),
)
CELLS = (
    *("", " ", "NA", "nan", "inf", "-1", "0", "1e999", "9" * 5000, "0x10", "1_000", "1,5"),
    *('=cmd|" /C calc"!A0', "+1", "-1+1", "@x", "'=1", "''", '"', '""', "a\nb", "a\rb", "a,b", ";"),
    *("\0", "\x1b[2J", "\u202e", "\u2028", "\ufeff", "\u0665", "\uff11", "²", "Ⅷ", "🧠", "é"),
    *("../../x", "/dev/zero", ".", "..", "x" * 200_000, "a" * 300 + "/b", "scan.nii#1", "#1"),
    *("scan.nii#999999", "scan.nii#²"),
)
_LINE_ENDS = (b"\r\n", b"\r", b"\n\n", b"\r\r\n", b"\x0b", "\u2028".encode(), b"\0")
_ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1", "cp037", "utf-7")


def choose(rng: np.random.Generator, options: Sequence[Any]) -> Any:
    """One of several options, of whatever type."""
    return options[int(rng.integers(len(options)))]


def spoil_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes changed, cut, doubled or moved, as damage or a clumsy tool would."""
    raw = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        raw = choose(rng, _BYTE_CHANGES)(raw, rng)
    return bytes(raw)


def spoil_text(content: bytes, rng: np.random.Generator) -> bytes:
    """Lines doubled, dropped or exchanged, another encoding, other line ends; or spoiled bytes."""
    way = rng.random()
    if way < 0.4:
        lines = content.splitlines(keepends=True) or [b""]
        one, other = (int(rng.integers(len(lines))) for _ in range(2))
        change = rng.random()
        if change < 0.4:
            lines[one], lines[other] = lines[other], lines[one]
        elif change < 0.7:
            lines[one:one] = [lines[other]] * int(choose(rng, (1, 2, 500)))
        else:
            del lines[one]
        return b"".join(lines)
    if way < 0.55:
        return content.replace(b"\n", choose(rng, _LINE_ENDS))
    if way < 0.7:
        text = content.decode("utf-8", errors="replace")
        return text.encode(choose(rng, _ENCODINGS), errors="replace")
    if way < 0.75:
        return b"\xef\xbb\xbf" * int(rng.integers(1, 3)) + content
    return spoil_bytes(content, rng)


def spoil_value(value: Any, rng: np.random.Generator) -> Any:
    """A copy of nested dicts and lists with one to three places changed: a value replaced, a key
    dropped, renamed or added, an element doubled."""
    changed = copy.deepcopy(value)
    for _ in range(int(rng.integers(1, 4))):
        changed = _spoil_place(changed, rng)
    return changed


def spoil_json(value: Any, rng: np.random.Generator) -> bytes:
    """A JSON document with other values, other text, or both."""
    way = rng.random()
    if way < 0.7:
        value = spoil_value(value, rng)
    text = json.dumps(value, indent=choose(rng, (None, 2))).encode()
    if way < 0.55:
        return text
    if way < 0.8:
        place = int(rng.integers(len(text) + 1))
        if rng.random() < 0.7:  # where a value begins
            place = max(text.find(b": ", place) + 2, 0)
        end = place + int(rng.integers(0, 6))
        return text[:place] + choose(rng, _JSON_TEXTS) + text[end:]
    return spoil_text(text, rng)


def spoil_table(rows: Sequence[Sequence[str]], rng: np.random.Generator) -> bytes:
    """A CSV file with other cells, columns, delimiters or text."""
    table = [list(row) for row in rows]
    for _ in range(int(rng.integers(0, 4))):
        row = choose(rng, table)
        change = rng.random()
        if row and change < 0.7:
            row[int(rng.integers(len(row)))] = choose(rng, CELLS)
        elif row and change < 0.8:
            del row[int(rng.integers(len(row)))]
        elif change < 0.9:
            row.insert(int(rng.integers(len(row) + 1)), choose(rng, (*CELLS, *row)))
        else:
            table.append(list(choose(rng, table)))
    text = io.StringIO(newline="")
    delimiter = str(rng.choice([",", ";", "\t", "|"], p=[0.8, 0.1, 0.05, 0.05]))
    writer = csv.writer(text, delimiter=delimiter, lineterminator=str(choose(rng, ("\n", "\r\n"))))
    writer.writerows(table)
    content = text.getvalue().encode()
    return spoil_text(content, rng) if rng.random() < 0.4 else content


def _spoil_place(value: Any, rng: np.random.Generator) -> Any:
    """Changes one place in nested dicts and lists; returns the whole."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.05:
        return copy.deepcopy(choose(rng, VALUES))
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = choose(rng, keys)
    if isinstance(value[key], dict | list) and value[key] and rng.random() < 0.8:
        value[key] = _spoil_place(value[key], rng)
        return value
    change = rng.random()
    if change < 0.7:
        value[key] = copy.deepcopy(choose(rng, VALUES))
    elif change < 0.85:
        del value[key]
    elif isinstance(value, list):
        value += [value[key]] * int(choose(rng, (1, 2, 1000)))
    elif change < 0.93:
        value[str(choose(rng, CELLS))] = value[key]
    else:
        value[str(key).upper()] = value.pop(key)
    return value


def _flip_bit(raw: bytearray, rng: np.random.Generator) -> bytearray:
    for _ in range(int(rng.integers(1, 6)) if raw else 0):
        raw[int(rng.integers(len(raw)))] ^= 1 << int(rng.integers(8))
    return raw


def _replace(raw: bytearray, rng: np.random.Generator) -> bytearray:
    place = int(rng.integers(len(raw) + 1))
    size = int(choose(rng, (1, 2, 4, 8)))
    number = int(choose(rng, EXTREMES)) % 256**size
    raw[place : place + size] = number.to_bytes(size, str(choose(rng, ("little", "big"))))
    return raw


def _cut(raw: bytearray, rng: np.random.Generator) -> bytearray:
    return raw[: int(rng.integers(len(raw) + 1))]


def _drop(raw: bytearray, rng: np.random.Generator) -> bytearray:
    first = int(rng.integers(len(raw) + 1))
    del raw[first : first + int(rng.integers(1, 64))]
    return raw


def _splice(raw: bytearray, rng: np.random.Generator) -> bytearray:
    """A part of the file once more, somewhere else."""
    first, place = (int(rng.integers(len(raw) + 1)) for _ in range(2))
    part = raw[first : first + int(rng.integers(1, 256))]
    raw[place:place] = part * int(choose(rng, (1, 1, 2, 50)))
    return raw


def _insert(raw: bytearray, rng: np.random.Generator) -> bytearray:
    place = int(rng.integers(len(raw) + 1))
    raw[place:place] = choose(
        rng, (b"\0", b"\xff\xfe", b"\xc3", b"\x1b[2J", b'"', b"\\", b"\r", b"\0" * 5000)
    )
    return raw


_BYTE_CHANGES: tuple[Callable[[bytearray, np.random.Generator], bytearray], ...] = (
    _flip_bit, _flip_bit, _replace, _cut, _drop, _splice, _insert,
)  # fmt: skip
