"""What a class is called, given what its folder is called or what a list calls it."""

from __future__ import annotations

import unicodedata

__all__ = ["class_name"]

_CONTROL = ("Cc", "Zl", "Zp")  # Unicode's control characters and its ends of lines and paragraphs


def class_name(folder: str) -> str:
    r"""Return a class's name from its folder's name, so that it can be printed and written as JSON.

    Accents are composed (NFC), whichever way the file system keeps them. Bytes that are no UTF-8
    and control characters are written as ``\xe9`` or ``\u2028``. A name that is so already stays.
    """
    readable = folder.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in _CONTROL else c
        for c in unicodedata.normalize("NFC", readable)
    )
