"""How Sphinx makes web pages of this folder: ``make docs``."""

import inspect
import pathlib
import re

import fastdl
from fastdl import kernels

HERE = pathlib.Path(__file__).parent

project = "fastdl"
author = "The fastdl developers"
version = release = fastdl.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
# Every example is run, in seconds; its pictures become part of its page.
sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "examples",
    "filename_pattern": r"plot_",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 10,
    "abort_on_example_error": True,
    "copyfile_regex": r".*\.txt",
}
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]
exclude_patterns = ["_build", "gallery", "examples/*.py", "examples/*.ipynb", "**sg_execution_times.rst"]
html_theme = "furo"
html_title = "fastdl"
# Third-party classes that members are inherited from have their own pages.
autodoc_member_order = "bysource"
autodoc_mock_imports = ["tqdm", "PIL", "onnx", "tensorboard"]
numpydoc_show_class_members = False  # autodoc lists them


def kernel_page():
    """Every kernel's signature and text, as the compiled module tells them."""
    lines = ["# Kernels", "", inspect.getdoc(kernels).split("\n")[0], ""]
    for name in kernels.__all__:
        lines += [f"## {name}", "", "```text", inspect.getdoc(getattr(kernels, name)) or "", "```", ""]
    return "\n".join(lines)


page, text = HERE / "reference" / "kernels.md", kernel_page()
page.parent.mkdir(exist_ok=True)
if not page.exists() or page.read_text() != text:
    page.write_text(text)


def keep_bars(app, what, name, obj, options, lines):
    """A bar in a docstring is an absolute value, never a substitution."""
    lines[:] = [line.replace("|", r"\|") for line in lines]


def pages_of_the_root(app, docname, source):
    """What the pages in about/ include, with links that lead to the pages here."""
    root, here = HERE.parent, (HERE / docname).parent

    def link(match):
        target = match[1]
        if not (root / target).exists():  # code that looks like a link
            return match[0]
        if target.startswith("docs/"):
            return f"](../{target.removeprefix('docs/')})"
        page = target.lower()
        return f"]({page})" if (here / page).exists() else f"](../../{target})"

    def included(match):
        path = here / match[1]
        app.env.note_dependency(str(path.resolve()))
        return re.sub(r"\]\(([^)#]+)\)", link, path.read_text())

    if docname.startswith("about/"):
        source[0] = re.sub(r"```\{include\} (\S+)\n```\n?", included, source[0])


def setup(app):
    app.connect("source-read", pages_of_the_root)
    app.connect("autodoc-process-docstring", keep_bars)
