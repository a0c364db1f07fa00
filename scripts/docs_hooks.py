"""What MkDocs cannot do by itself for this project's pages.

The README and other pages lie outside docs/, and pages there link to files of the checkout. So that
all of them read the same here and on the site, they become pages or files of the site, and links
are rewritten to where those are. The list of error messages is made from the code.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
sys.path.append(str(ROOT / "scripts"))

import docs_messages  # noqa: E402 - a hook is no package

# Pages of the site that lie elsewhere in the checkout, by their path on the site.
OUTSIDE = {
    "index.md": ROOT / "README.md",
    "contributing.md": ROOT / "CONTRIBUTING.md",
    "changelog.md": ROOT / "CHANGELOG.md",
    "data-folder.md": ROOT / "data" / "README.md",
}
_LINK = re.compile(r"\]\(([^)\s:#]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages from outside docs/, the files that pages link to, and the messages."""
    for uri, path in OUTSIDE.items():
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    messages = docs_messages.render(docs_messages.collect())
    files.append(File.generated(config, "reference/messages.md", content=messages))
    pages = [*DOCS.rglob("*.md"), *OUTSIDE.values()]
    for path in pages:
        for target, _anchor in _LINK.findall(path.read_text()):
            file = (path.parent / target).resolve()
            if _is_plain(file) and files.get_file_from_path(_uri(file)) is None:
                files.append(File.generated(config, _uri(file), abs_src_path=str(file)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrites links to files of the checkout into links to their place on the site."""
    source = OUTSIDE.get(page.file.src_uri, DOCS / page.file.src_uri)
    to_root = "../" * page.file.src_uri.count("/")

    def rewritten(match: re.Match[str]) -> str:
        file = (source.parent / match[1]).resolve()
        if not file.exists():
            return match[0]  # reference/messages.md, or broken, which --strict reports
        return f"]({to_root}{_uri(file)}{match[2] or ''})"

    return _LINK.sub(rewritten, markdown)


def _is_plain(file: Path) -> bool:
    """Whether it is a file of the checkout that is neither a page nor below docs/."""
    return file.is_file() and file not in OUTSIDE.values() and not file.is_relative_to(DOCS)


def _uri(file: Path) -> str:
    """The place of a file of the checkout on the site."""
    for uri, path in OUTSIDE.items():
        if file == path:
            return uri
    if file.is_relative_to(DOCS):
        return file.relative_to(DOCS).as_posix()
    return f"files/{file.relative_to(ROOT).as_posix()}"
