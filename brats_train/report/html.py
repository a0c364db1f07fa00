"""Self-contained HTML pages: one file, no network, all text escaped.

All pages share page.html and base.css. Styles and scripts come from the package's `pages` folder.
The Content-Security-Policy of a page lists their digests, so a browser runs nothing else and
fetches nothing, whatever the data hold.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

__all__ = ["assemble", "asset", "data_uri", "embedded_json", "shown_number"]


def asset(name: str) -> bytes:
    """Reads a file of the package's `pages` folder."""
    return files(__package__).joinpath("pages", name).read_bytes()


def assemble(
    template: str, *, style: str, scripts: Sequence[str], texts: Mapping[str, str], **parts: str
) -> bytes:
    """Assembles a page.

    Args:
        template: Name of an HTML file with $placeholders, what stands in the page's body.
        style: CSS of the page, after that of all pages.
        scripts: JavaScript, run in this order at the end of the page.
        texts: Values of placeholders that are text, to be escaped; "title" is one.
        **parts: Values of placeholders that are HTML already.

    Raises:
        ValueError: A script holds what would end its element.
    """
    for script in scripts:
        if "</script" in script.lower() or "<!--" in script:
            raise ValueError("a script that would end its own element")
    style = asset("base.css").decode() + style
    digests = " ".join(map(_digest, scripts))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {digests}; "
        "base-uri 'none'; form-action 'none'"
    )
    escaped = {name: escape(text) for name, text in texts.items()}
    body = Template(asset(template).decode()).substitute(escaped, **parts)
    page = Template(asset("page.html").decode()).substitute(
        title=escaped["title"],
        policy=policy,
        style=style,
        body=body,
        scripts="\n".join(f"<script>{script}</script>" for script in scripts),
    )
    return page.encode()


def embedded_json(name: str, value: Any) -> str:
    """Encodes a value as a JSON data block, found by its id; no text in it can end the block."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return f'<script type="application/json" id="{escape(name)}">{text}</script>'


def data_uri(content: bytes, kind: str) -> str:
    """Encodes content as a data URI; `kind` is its media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def shown_number(value: float, digits: int, *, signed: bool = False) -> str:
    """Writes a number with a minus in place of a hyphen, and none before a zero."""
    return f"{value:{'+' if signed else ''}z.{digits}f}".replace("-", "−")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
