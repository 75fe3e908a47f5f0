"""The scripts of a bundle, copied out of MetaKD so that they need nothing of it."""

from __future__ import annotations

import re
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

__all__ = ["KIT", "copied"]

KIT = "kit"
"""The bundle's folder of modules, beside run.py."""

PICTURES = ("picture_decoding", "picture_modes", "picture_depth", "colour_profile")
READS = ("picture_reading", "class_names", *PICTURES)
SHIPPED = ("few_shot", "classes", "files", "labels", "pixels", "reasons", "sessions", "texts")
_IMPORT = re.compile(r"^( *)from metakd\.(?:data|exporting\.shipped)\.(\w+) import", re.MULTILINE)


def copied(runtime: str) -> dict[str, str]:
    """Return the scripts of a bundle, by their names in it.

    Args:
        runtime: its format.
    """
    modules = {name: f"metakd.data.{name}" for name in READS}
    own = (*SHIPPED, f"session_{runtime}")
    modules |= {name: f"metakd.exporting.shipped.{name}" for name in own}
    found = {f"{KIT}/{name}.py": _text(module) for name, module in modules.items()}
    return {"run.py": _text("metakd.exporting.shipped.run"), f"{KIT}/__init__.py": "", **found}


def _text(module: str) -> str:
    """Return a module's source with imports of the other copies instead of MetaKD's."""
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).read_text(encoding="utf-8")
    from_where = f"# Of MetaKD {version('metakd')} ({module}), Apache-2.0.\n"
    return from_where + _IMPORT.sub(rf"\1from {KIT}.\2 import", source)
