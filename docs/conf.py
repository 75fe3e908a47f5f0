"""How `make docs` makes a site of these pages: Sphinx, MyST for Markdown, the Furo theme."""

import re

from sphinx.application import Sphinx

import metakd

project = "MetaKD"
author = "The MetaKD contributors"
version = release = metakd.__version__

extensions = ["myst_nb", "sphinx.ext.apidoc", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

myst_heading_anchors = 4  # headings can be linked as on the repository's page
myst_enable_extensions = ["colon_fence"]
nb_execution_mode = "off"  # the notebook's outputs are kept in it; a test runs its code

# The reference is made of the docstrings of every module, a page for each room, in api/.
apidoc_modules = [
    {
        "path": "../metakd",
        "destination": "api",
        "exclude_patterns": ["../metakd/__main__.py"],
        "module_first": True,
    }
]
autodoc_default_options = {"ignore-module-all": True}  # each name once, where it is defined
autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
suppress_warnings = ["ref.python"]  # a type without its module that several rooms have
default_role = "code"  # `x` in a docstring is code, as in Markdown

html_theme = "furo"
html_title = "MetaKD"
html_show_sourcelink = False
html_show_copyright = False


_attribute: list[str] = []


def _as_written(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Let `*` and `|` outside code mean themselves, as they do in docstrings of this project."""
    for i, line in enumerate(lines):
        bullet, text = re.fullmatch(r"(\s*(?:\* )?)(.*)", line).groups()
        parts = re.split(r"(`[^`]*`)", text)
        lines[i] = bullet + "".join(
            part if part.startswith("`") else re.sub(r"([*|])", r"\\\1", part) for part in parts
        )
    _attribute[:] = lines


def _whole(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Give an attribute its words back: napoleon takes what stands before a colon for a type."""
    if what == "attribute":
        lines[:] = _attribute


def setup(app: Sphinx) -> None:
    """Register what has to happen before and after napoleon reads a docstring (at 500)."""
    app.connect("autodoc-process-docstring", _as_written, priority=400)
    app.connect("autodoc-process-docstring", _whole, priority=600)
