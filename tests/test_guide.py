"""The user guide's code runs, and says what its comments promise."""

import contextlib
import importlib.util
import io
import re
from pathlib import Path

import pytest

GUIDE = Path(__file__).resolve().parent.parent / "docs" / "guide"
PAGES = {path.stem: re.findall(r"```python\n(.*?)```", path.read_text(), re.S) for path in sorted(GUIDE.glob("*.md"))}
LONG = {"autoencoders-and-gans"}  # trains for minutes
NEEDS = {"simple-enough": "sklearn", "in-practice": "sklearn", "which-net": "sklearn"}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning" if importlib.util.find_spec("sklearn") else "default")
@pytest.mark.parametrize("page", [name for name, blocks in PAGES.items() if blocks and name not in LONG])
def test_page(page, tmp_path, monkeypatch):
    if page in NEEDS:
        pytest.importorskip(NEEDS[page])
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "guide"}
    for block in PAGES[page]:
        promised = re.findall(r"^print\(.*\)  # (.*)$", block, re.M)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(block, f"{page}.md", "exec"), names)
        said = out.getvalue()
        for promise in promised:
            answer = promise.split(":")[0].split(", with")[0]
            assert answer in said, f"{page}: {promise!r} expected; printed {said!r}"


def test_every_page_is_in_the_table_of_contents():
    listed = re.search(r":maxdepth: 1\n\n(.*?)```", (GUIDE / "index.md").read_text(), re.S)[1].split()
    assert sorted(listed) == sorted(set(PAGES) - {"index"})
