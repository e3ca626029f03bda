"""Of `sphinx-build -W docs build/docs`: this folder's pages, and a reference from the docstrings."""

import re

import mlcv
from mlcv.cli import SUBCOMMANDS

project = "mlcv"
release = version = mlcv.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"mlcv {release}"
myst_heading_anchors = 3
napoleon_custom_sections = ["Shape"]
napoleon_use_rtype = False
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
# What Lightning's and torch's classes bring is in their own reference.
autodoc_default_options = {"members": True, "exclude-members": "forward,training", "show-inheritance": True}
autodoc_inherit_docstrings = False


def plain(_app, _what, _name, _thing, _options, lines):
    """Docstrings here are text with code between single backticks; nothing else in them is markup."""
    for number, line in enumerate(lines):
        for place, part in enumerate(line.split("`")):
            if place % 2:
                lines[number] += f"``{part}``"
            else:
                joint = "\\ " if place and part[:1].isalnum() else ""
                lines[number] = (lines[number] if place else "") + joint + escaped(part)


def escaped(text):
    return re.sub(r"[*|]|_(?=\W|$)", r"\\\g<0>", text)


def with_commands(_app, page, source):
    """The functions behind the command line, as its table names them."""
    if page == "api":
        # A function is called as its command, or as its module where that name is a package's.
        names = (name if name in mlcv.__all__ else module for name, (module, _) in SUBCOMMANDS.items())
        named = [name for name in names if name in mlcv.__all__]
        source[0] = source[0].replace("@commands@", "\n".join(f".. autofunction:: mlcv.{name}" for name in named))


def setup(app):
    app.connect("source-read", with_commands)
    app.connect("autodoc-process-docstring", plain, priority=100)  # before napoleon reads them
