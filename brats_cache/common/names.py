"""Names of cases and patients: how they are compared, and whether they can be file names."""

from __future__ import annotations

import unicodedata

__all__ = ["check_file_name", "composed", "id_key"]


def composed(name: str) -> str:
    """Returns a name in Unicode's composed form (NFC).

    Files that were on a Mac may have an accent as a character of its own (NFD); tables and other
    systems have not. The two look alike, and macOS takes them for one name.

    >>> composed("Jose\u0301") == "Jos\u00e9"
    True
    """
    return unicodedata.normalize("NFC", name)


def id_key(name: str) -> str:
    """Returns the form in which ids are compared: composed, and without letter case.

    >>> id_key("JOSE\u0301") == id_key("jos\u00e9")
    True
    """
    return composed(composed(name).casefold())


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
