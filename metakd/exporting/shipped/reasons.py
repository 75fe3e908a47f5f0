"""What a library says of a failure, in one line."""

from __future__ import annotations

__all__ = ["reason"]


def reason(error: Exception) -> str:
    """Return at most 160 characters of what an exception says, or else its name."""
    return " ".join(str(error).split())[:160] or type(error).__name__
