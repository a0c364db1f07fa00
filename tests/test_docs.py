"""What the Markdown pages name exists: links, paths, modules, functions, commands and options."""

from __future__ import annotations

import ast
import contextlib
import importlib
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from brats_train.cli.environment import unknown_variables
from brats_train.cli.main import COMMANDS, cli

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("brats_cache", "brats_train")
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "data" / "README.md"],
    key=lambda page: page.as_posix(),
)
ARCHITECTURE = ROOT / "docs" / "architecture.md"
MIN_BEHAVIOURS = 20
MIN_COMMANDS = 40

each_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix()
)


def code_of(text: str) -> str:
    """The fenced blocks and code spans of a page, a line each."""
    fenced = re.findall(r"^```.*?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return "\n".join([*fenced, *re.findall(r"`([^`\n]+)`", prose)])


def anchors_of(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@cache
def defined_in(path: Path) -> frozenset[str]:
    """The names of functions and classes at the top level of a module."""
    tree = ast.parse(path.read_text())
    kinds = (ast.FunctionDef, ast.ClassDef)
    return frozenset(node.name for node in tree.body if isinstance(node, kinds))


def resolves(dotted: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:]:
            if not hasattr(found, name):
                return False
            found = getattr(found, name)
        return True
    return False


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        if not path.exists() or (anchor and anchor not in anchors_of(path.read_text())):
            broken.append(target)
    assert not broken


@each_page
def test_paths_exist(page: Path) -> None:
    """Of the folders whose content is the project's; data/ and runs/ are the user's."""
    paths = re.findall(
        r"(?<![\w/.-])(?:brats_cache|brats_train|tests|scripts|docs)/[\w./-]*", page.read_text()
    )
    missing = {path for path in paths if not (ROOT / path.rstrip(".")).exists()}
    assert not {path for path in missing if "DATE" not in path}  # a name that the user chooses


@each_page
def test_names_of_modules_and_functions_resolve(page: Path) -> None:
    text = page.read_text()
    names = set(re.findall(r"\bbrats_(?:cache|train)(?:\.[A-Za-z_]\w*)+", text))
    for module, imported in re.findall(r"^ *from (brats_[\w.]+) import (.+)$", text, re.MULTILINE):
        names |= {f"{module}.{name.strip()}" for name in imported.split(",")}
    assert not {name for name in names if not resolves(name)}


@each_page
def test_commands_and_their_options_exist(page: Path) -> None:
    unknown = []
    context = click.Context(cli)
    for name, rest in re.findall(r"\bbrats ([a-z][\w-]*)\b([^\n#]*)", code_of(page.read_text())):
        command = cli.get_command(context, name)
        if command is None:
            unknown.append(name)
            continue
        known = {
            flag for option in command.params for flag in (*option.opts, *option.secondary_opts)
        }
        flags = re.findall(r"(?<![\w-])--[a-z][\w-]*", rest)
        unknown += [f"{name} {flag}" for flag in flags if flag not in {*known, "--help"}]
    assert not unknown


def typed_commands(text: str) -> Iterator[tuple[str, ...]]:
    """The words after `brats` of every command in a page's blocks of shell.

    Left out are synopses (`brats predict CASE... [--run DIR]`), which nobody types.
    """
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if language:
            continue
        for line in block.replace("\\\n", " ").splitlines():
            if found := re.search(r"(?:^|[\s/])brats ([a-z].*)", line):
                if "[--" in found[1] or "..." in found[1]:
                    continue
                words = shlex.split(found[1], comments=True)
                yield tuple(word for word in words if word != "&")


def spans_of(text: str) -> Iterator[tuple[str, ...]]:
    """The words after `brats` of commands in code spans, but for names in capitals and ellipses."""
    for span in re.findall(r"`[^`\n]*\bbrats ([a-z][^`\n]*)`", text):
        if not re.search(r"\b[A-Z]+\b|\.\.\.|…|\[", span):
            yield tuple(shlex.split(span))


def parse(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parses a command as the program does, values too; files need not be there.

    Raises:
        click.UsageError: There is no such command, argument, option or value.
    """
    context = click.Context(cli)
    name, found, rest = cli.resolve_command(context, list(words))
    assert name is not None
    assert found is not None
    for parameter in found.params:
        if isinstance(parameter.type, click.Path):
            monkeypatch.setattr(parameter.type, "exists", False)
    with contextlib.suppress(click.exceptions.Exit):  # --help
        found.make_context(name, list(rest), parent=context)


@each_page
def test_every_command_is_understood(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands, by click. Most need scans, a training or a GPU, so none is carried out here."""
    text = page.read_text()
    wrong = []
    for words in typed_commands(text):
        try:
            parse(words, monkeypatch)
        except click.UsageError as error:
            wrong.append(f"brats {shlex.join(words)}: {error.format_message()}")
    for words in spans_of(text):
        try:
            parse(words, monkeypatch)
        except (click.MissingParameter, click.BadOptionUsage):  # prose need not repeat them
            continue
        except click.UsageError as error:
            wrong.append(f"brats {shlex.join(words)}: {error.format_message()}")
    assert not wrong


def test_the_commands_of_the_pages_are_found() -> None:
    commands = [words for page in PAGES for words in typed_commands(page.read_text())]
    assert len(commands) >= MIN_COMMANDS
    assert ("eval", "--split", "val") in commands


@pytest.mark.parametrize(
    "line", ["train --no-such-option", "train --epochs many", "trains", "eval x"]
)
def test_a_command_that_does_not_exist_is_noticed(
    line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (words,) = typed_commands(f"```\nbrats {line}\n```\n")
    with pytest.raises(click.UsageError):
        parse(words, monkeypatch)


def test_the_readme_promises_what_was_measured() -> None:
    section = re.search(
        r"^## What to expect\n(.*?)^## ", (ROOT / "README.md").read_text(), re.S | re.M
    )
    assert section is not None
    measured = "".join(
        (ROOT / "docs" / f"{name}.md").read_text() for name in ("accuracy", "performance")
    )
    figures = re.findall(r"(?<![\w.])\d+\.\d+(?![\w.]*\d)", section[1])
    assert len(figures) >= 5
    assert not [figure for figure in figures if figure not in measured]


@each_page
def test_environment_variables_are_read(page: Path) -> None:
    def get_command(name: str) -> click.Command:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        return command

    names = set(re.findall(r"\bBRATS_[A-Z_]*[A-Z]\b(?!_)", page.read_text()))
    assert not unknown_variables(names, COMMANDS, get_command)


def test_every_page_has_its_place_on_the_site() -> None:
    nav = (ROOT / "mkdocs.yml").read_text().partition("nav:")[2]
    folder = ROOT / "docs"
    pages = {path.relative_to(folder).as_posix() for path in folder.rglob("*.md")}
    pages = {page for page in pages if not page.startswith("benchmarks/")}  # mkdocs: not_in_nav
    assert not pages - set(re.findall(r"[\w/-]+\.md", nav))


def test_pictures_are_small() -> None:
    large = [path for path in (ROOT / "docs" / "images").iterdir() if path.stat().st_size > 150_000]
    assert not large


def table_rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the tables of one section, without their headings."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert section is not None, f"no section {heading}"
    lines = [line for line in section[1].splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rules = [number for number, row in enumerate(rows) if set(row[0]) == {"-"}]
    return [row for n, row in enumerate(rows) if n not in rules and n + 1 not in rules]


def test_each_behaviour_is_where_the_table_says() -> None:
    rows = table_rows(ARCHITECTURE.read_text(), "Where to find what")
    assert len(rows) >= MIN_BEHAVIOURS
    wrong = []
    for behaviour, where in rows:
        path, _, name = where.strip("`").partition("::")
        file = ROOT / path
        if not file.is_file() or (name and name not in defined_in(file)):
            wrong.append(f"{behaviour}: {where}")
    assert not wrong


def test_the_tables_of_packages_are_complete() -> None:
    listed, missing = set(), []
    for package, _, modules in table_rows(ARCHITECTURE.read_text(), "Packages"):
        folder = ROOT / package.strip("`/")
        listed.add(folder)
        missing += [
            f"{package} {name}"
            for name in re.findall(r"`(\w+)`", modules)
            if not (folder / f"{name}.py").is_file()
        ]
    assert not missing
    packages = {file.parent for name in PACKAGES for file in (ROOT / name).glob("*/__init__.py")}
    assert packages <= listed


def test_a_worker_process_can_import_the_scripts_of_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It imports them under another name, before there is a cache."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.M
    )
    scripts = [block for block in blocks if "__main__" in block]
    assert scripts
    for script in scripts:
        exec(compile(script, "README.md", "exec"), {"__name__": "__mp_main__"})
