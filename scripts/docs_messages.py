"""Every error message of the program, collected from its code, as a page of the documentation.

    python scripts/docs_messages.py

prints it. A message says by itself what was found, what was expected and what to do, so that a list
of them is a list of causes and cures, and one that is read from the code lacks none.
"""

from __future__ import annotations

import ast
import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("brats_cache", "brats_train")
# `DataFaults` and its subclass are made of faults, and have a text of their own in `advice` alone.
ERRORS = {
    *("BratsError", "CacheCorruptError", "CacheNotFoundError", "CheckpointError"),
    *("RecipeError", "RunNotFoundError", "UsageError", "BadParameter"),
}
COLLECTIONS = {"DataFaults", "LabelSchemeError"}
PARTS = ("found", "expected", "remedy")
MAX_DEPTH = 4  # of functions that hand a text on to another
INTRODUCTION = """# Error messages

All errors that the program reports, as they stand in its code; names between ‹ and › are filled in.
An error names the case and the file before this text. Search the page for a few words of yours.
[Troubleshooting](../troubleshooting.md) explains the kinds.
"""


@dataclass(frozen=True)
class Message:
    """One message of the code.

    Attributes:
        path: Of the module in which the text stands, relative to the checkout.
        line: Of the call that has the text.
        kind: Name of the error's class, or "Fault".
        texts: (message,), or what a fault found, what it expected, and the remedy or "".
    """

    path: Path
    line: int
    kind: str
    texts: tuple[str, ...]

    @property
    def is_passed_on(self) -> bool:
        """Whether no word of it stands here: a text that was made elsewhere."""
        return not re.search(r"\w", re.sub("‹[^›]*›", "", "".join(self.texts)))


def collect(root: Path = ROOT) -> list[Message]:
    """The messages of all errors that a person can cause, in the order of the code."""
    modules: dict[str, _Module] = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            relative = path.relative_to(root)
            tree = ast.parse(path.read_text(), filename=str(path))
            modules[".".join(relative.with_suffix("").parts)] = _Module(tree, relative)
    for module in modules.values():
        for source, name in module.imports():
            if source in modules:
                modules[source].importers.setdefault(name, []).append(module)
    found = [message for module in modules.values() for message in module.messages()]
    return sorted(found, key=lambda message: (message.path, message.line))


class _Module:
    """The errors of one module; texts that a function is given are looked up where it is called.

    Attributes:
        importers: The modules that import a function of this one, by the name of the function.
    """

    def __init__(self, tree: ast.Module, path: Path = Path()) -> None:
        self._tree, self._path = tree, path
        self.importers: dict[str, list[_Module]] = {}
        self._function_of: dict[ast.AST, ast.FunctionDef | None] = {}
        self._note_functions(tree, None)
        self._calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        self._constants = {
            node.targets[0].id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        }

    def imports(self) -> Iterator[tuple[str, str]]:
        """Module and name of everything that is imported by name."""
        for node in ast.walk(self._tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                yield from ((node.module, alias.name) for alias in node.names)

    def messages(self) -> Iterator[Message]:
        for call in self._calls:
            kind = _called(call)
            if kind == "Fault":
                given = {word.arg: word.value for word in call.keywords}
                parts: Sequence[ast.expr | None] = [given.get(name) for name in PARTS]
            elif kind in ERRORS:
                parts = call.args[:1]
            elif kind in COLLECTIONS and (advice := _advice(call)) is not None:
                parts = [advice]
            else:
                continue
            for path, line, texts in self._texts(parts, call, 0):
                yield Message(path, line, kind, texts)

    def _note_functions(self, node: ast.AST, function: ast.FunctionDef | None) -> None:
        for child in ast.iter_child_nodes(node):
            self._function_of[child] = function
            inner = child if isinstance(child, ast.FunctionDef) else function
            self._note_functions(child, inner)

    def _texts(
        self, parts: Sequence[ast.expr | None], call: ast.AST, depth: int
    ) -> Iterator[tuple[Path, int, tuple[str, ...]]]:
        """The texts of one call, each with its module and line.

        There are several where they are parameters of the function around it.
        """
        function = self._function_of[call]
        names = {part.id for part in parts if isinstance(part, ast.Name)}
        given = {argument.arg for argument in _parameters(function)} & names
        callers = [] if function is None else self._callers(function)
        if function is None or not given or not callers or depth == MAX_DEPTH:
            yield self._path, call.lineno, tuple(self._text(part, function) for part in parts)
            return
        for module, caller in callers:
            arguments = _bound(function, caller)
            yield from module._texts(
                [
                    arguments.get(part.id, part) if isinstance(part, ast.Name) else part
                    for part in parts
                ],
                caller,
                depth + 1,
            )

    def _callers(self, function: ast.FunctionDef) -> list[tuple[_Module, ast.Call]]:
        modules = [self, *self.importers.get(function.name, ())]
        return [
            (module, call)
            for module in modules
            for call in module._calls
            if _called(call) == function.name
        ]

    def _text(self, node: ast.expr | None, function: ast.FunctionDef | None) -> str:
        """A text with the names of what is filled in; of two texts, both."""
        if node is None:
            return ""
        if isinstance(node, ast.Constant):
            return str(node.value)
        if isinstance(node, ast.JoinedStr):
            return "".join(
                self._text(
                    value.value if isinstance(value, ast.FormattedValue) else value, function
                )
                for value in node.values
            )
        if isinstance(node, ast.IfExp):
            return f"{self._text(node.body, function)} / {self._text(node.orelse, function)}"
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self._text(node.left, function) + self._text(node.right, function)
        if isinstance(node, ast.Name) and function is not None:
            texts = [
                self._text(other.value, None)
                for other in ast.walk(function)
                if isinstance(other, ast.Assign)
                and any(isinstance(to, ast.Name) and to.id == node.id for to in other.targets)
                and isinstance(other.value, ast.Constant | ast.JoinedStr | ast.IfExp)
            ]
            if texts:
                return " / ".join(dict.fromkeys(texts))
        return self._filled(node)

    def _filled(self, node: ast.expr) -> str:
        """The name of what is filled in: `printable(error.path)` is "path"."""
        while True:
            if isinstance(node, ast.Call) and node.args:
                node = node.args[-1] if _called(node) == "join" else node.args[0]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                node = node.func.value
            elif isinstance(node, ast.Attribute):
                return f"‹{node.attr.strip('_')}›"
            elif isinstance(node, ast.Name):
                return self._constants.get(node.id, f"‹{node.id.strip('_')}›")
            elif isinstance(node, ast.Subscript | ast.Starred):
                node = node.value
            else:
                return "‹…›"


def _called(call: ast.Call) -> str:
    """The name of what is called, without what it is an attribute of."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _advice(call: ast.Call) -> ast.expr | None:
    if len(call.args) > 1:
        return call.args[1]
    return next((word.value for word in call.keywords if word.arg == "advice"), None)


def _parameters(function: ast.FunctionDef | None) -> list[ast.arg]:
    if function is None:
        return []
    arguments = function.args
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]


def _bound(function: ast.FunctionDef, call: ast.Call) -> Mapping[str, ast.expr]:
    """The arguments of a call by the names of the parameters; defaults for those not given."""
    names = [argument.arg for argument in _parameters(function)]
    if names[:1] in (["self"], ["cls"]):
        names = names[1:]
    positional = function.args.args
    defaults = function.args.defaults
    bound: dict[str, ast.expr] = dict(
        zip((argument.arg for argument in positional[-len(defaults) :]), defaults, strict=False)
        if defaults
        else ()
    )
    bound |= dict(zip(names, call.args, strict=False))
    return bound | {word.arg: word.value for word in call.keywords if word.arg}


def render(messages: Sequence[Message]) -> str:
    """The page in Markdown: two tables for each package, faults of data and other errors."""
    lines = [INTRODUCTION]
    packages = dict.fromkeys(message.path.parent for message in messages)
    for package in packages:
        here = [
            message
            for message in messages
            if message.path.parent == package and not message.is_passed_on
        ]
        lines += [f"## {_title(package)}", ""]
        faults = dict.fromkeys(message.texts for message in here if message.kind == "Fault")
        others = dict.fromkeys(message.texts for message in here if message.kind != "Fault")
        if faults:
            lines += ["| found | expected | what to do |", "|---|---|---|"]
            lines += [f"| {' | '.join(map(_cell, texts))} |" for texts in faults] + [""]
        if others:
            lines += ["| message |", "|---|"]
            lines += [f"| {_cell(text)} |" for (text,) in others] + [""]
    return "\n".join(lines)


def _title(package: Path) -> str:
    """What a package is for, by the first line of its docstring."""
    text = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text())) or ""
    return re.split(r"[:;.] |[.:]$", text.splitlines()[0].replace("`", ""))[0]


def _cell(text: str) -> str:
    """A text in a cell of a table, where nothing of it is markup."""
    plain = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_{}\[\]()#+!|~$^=-])", lambda match: f"&#{ord(match[1])};", plain)


if __name__ == "__main__":
    print(render(collect()))
