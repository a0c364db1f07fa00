"""The page of error messages is made from the code and lacks none."""

from __future__ import annotations

import ast
import functools
import html
import re
import sys
from pathlib import Path

import brats_cache.common.errors as errors
from brats_cache.common.errors import BratsError

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "scripts"))

import docs_messages  # noqa: E402 - scripts are no package

collect = functools.cache(docs_messages.collect)
MIN_MESSAGES = 200
# Texts that other functions make, and hand over whole.
MAX_PASSED_ON = 15


def test_every_kind_of_error_is_collected_and_explained() -> None:
    kinds = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, BratsError)
    }
    assert kinds <= docs_messages.ERRORS | docs_messages.COLLECTIONS
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    assert not [name for name in kinds if f"| `{name}` |" not in page]


def test_no_error_is_left_out() -> None:
    """Every file in which one is made has messages, at least one for each `raise`."""
    wanted = docs_messages.ERRORS | {"Fault"}
    for package in docs_messages.PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            if path == Path(errors.__file__):  # makes faults of texts that other modules give it
                continue
            tree = ast.parse(path.read_text())
            makes = [
                node
                for node in ast.walk(tree)
                if isinstance(node, ast.Call)
                and (getattr(node.func, "id", "") or getattr(node.func, "attr", "")) in wanted
            ]
            here = [m for m in collect() if m.path == path.relative_to(ROOT)]
            assert len(here) >= len(makes), path
    assert len(collect()) >= MIN_MESSAGES


def test_few_messages_are_made_elsewhere() -> None:
    passed_on = [message for message in collect() if message.is_passed_on]
    assert len(passed_on) <= MAX_PASSED_ON, passed_on


def module_of(text: str) -> list[docs_messages.Message]:
    return list(docs_messages._Module(ast.parse(text)).messages())


def test_names_are_filled_in_and_both_of_two_texts_stand() -> None:
    (message,) = module_of(
        "AGAIN = 'Try again.'\n"
        "def f(path, error, is_old):\n"
        "    why = 'old' if is_old else 'new'\n"
        "    raise BratsError(f'{printable(path)}: {why}, {error.strerror}. {AGAIN}')\n"
    )
    assert message.texts == ("‹path›: old / new, ‹strerror›. Try again.",)
    assert message.line == 4


def test_a_text_is_found_where_a_function_is_given_it() -> None:
    messages = module_of(
        "def refuse(path, found, expected):\n"
        "    raise DataFaults([Fault(case='', path=path, found=found, expected=expected)])\n"
        "refuse(1, 'a file', expected='a folder')\n"
        "refuse(2, f'{n} bytes', 'none')\n"
    )
    assert [message.texts for message in messages] == [
        ("a file", "a folder", ""),
        ("‹n› bytes", "none", ""),
    ]


def test_a_text_is_found_where_another_module_gives_it(tmp_path: Path) -> None:
    modules = {
        "faults": "def refuse(path, found):\n"
        "    return Fault(case='', path=path, found=found, expected='a file')\n",
        "header": "from brats_cache.faults import refuse\n\nraise refuse(1, f'{n} bytes')\n",
    }
    (tmp_path / "brats_cache").mkdir()
    for name, text in modules.items():
        (tmp_path / "brats_cache" / f"{name}.py").write_text(text)
    (message,) = docs_messages.collect(tmp_path)
    assert message.texts == ("‹n› bytes", "a file", "")
    assert (message.path, message.line) == (Path("brats_cache/header.py"), 3)


def test_nothing_in_a_message_is_markup_on_the_page() -> None:
    cell = docs_messages._cell("<b> | *x* `y` [z](w)")
    assert not re.search(r"[<>|*`\[\]]", cell)
    assert html.unescape(cell) == "<b> | *x* `y` [z](w)"
