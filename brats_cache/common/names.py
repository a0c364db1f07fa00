"""Names that become file names."""

from __future__ import annotations

import unicodedata

__all__ = ["check_file_name"]


def check_file_name(name: str) -> None:
    """Checks that a name can be used as, or at the start of, a file name in a folder.

    It must name an entry of that folder and nothing else: ids of cases come from file names, tables
    and caches that other people made.

    Args:
        name: Such as the id of a case.

    Raises:
        ValueError: It is empty, "." or "..", or holds a slash or a control character (NUL and
            line ends among them); the message says which.
    """
    if not name:
        raise ValueError("it is empty")
    if name in (".", ".."):
        raise ValueError("it names a folder")
    if "/" in name:
        raise ValueError("it holds a slash")
    for character in name:
        if unicodedata.category(character) in ("Cc", "Zl", "Zp"):
            raise ValueError(f"it holds the control character U+{ord(character):04X}")
