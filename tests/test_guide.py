"""The user guide's code runs, and says what its comments promise."""

import contextlib
import dataclasses
import importlib.util
import io
import re
from pathlib import Path

import pytest

from fastdl import data

ROOT = Path(__file__).resolve().parent.parent
GUIDE = ROOT / "docs" / "guide"
PAGES = {path.stem: re.findall(r"```python\n(.*?)```", path.read_text(), re.S) for path in sorted(GUIDE.glob("*.md"))}
# what would train for minutes, with its sizes cut down: what the page says, what is run, how often
CUT = {
    "autoencoders-and-gans": [
        ("epochs=20", "epochs=1", 2),
        ("epochs=15", "epochs=1", 1),
        ("width=24", "width=4", 1),
        ("GaussianMixture(100)", "GaussianMixture(3)", 1),
        ("sample(1000", "sample(100", 3),
    ],
}
NEEDS = {"simple-enough": "sklearn", "in-practice": "sklearn", "which-net": "sklearn"}


def few(name, load=data.load):
    """A data set of which 300 samples are left to train on, and 100 to test."""
    d = load(name)
    return dataclasses.replace(
        d, x_train=d.x_train[:300], y_train=d.y_train[:300], x_test=d.x_test[:100], y_test=d.y_test[:100]
    )


@pytest.mark.filterwarnings("ignore:mode collapse:RuntimeWarning")  # an epoch is too short to learn variety
@pytest.mark.parametrize("page", [name for name, blocks in PAGES.items() if blocks])
def test_page(page, tmp_path, monkeypatch):
    if page in NEEDS:
        pytest.importorskip(NEEDS[page])
    monkeypatch.chdir(tmp_path)
    names, blocks = {"__name__": "guide"}, "\0".join(PAGES[page])
    for said, run, times in CUT.get(page, ()):
        assert blocks.count(said) == times, f"{page}: {said!r} expected {times} times"
        blocks = blocks.replace(said, run)
    if page in CUT:
        monkeypatch.setattr(data, "load", few)
    for block in blocks.split("\0"):
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


def test_readme(tmp_path, monkeypatch):
    """Its blocks run, with few epochs and a photo of ours."""
    first, kernel = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    assert "epochs=20" in first
    exec(compile(first.replace("epochs=20", "epochs=1"), "README.md", "exec"), {})
    assert (tmp_path / "digits.safetensors").exists()
    image = pytest.importorskip("PIL.Image")
    image.new("RGB", (9, 7), (40, 80, 120)).save("photo.jpg", quality=100)
    exec(compile(kernel, "README.md", "exec"), {})
    brighter = image.open("brighter.jpg")
    assert brighter.size == (8, 6)  # a pixel is half the sum of four
    assert all(abs(got - 2 * was) <= 4 for got, was in zip(brighter.getpixel((3, 3)), (40, 80, 120)))


def test_tables_are_made_of_the_reports():
    """Whoever adds a report fills the tables again."""
    spec = importlib.util.spec_from_file_location("readme_table", ROOT / "benchmarks" / "readme_table.py")
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    for page, section in tables.sections().items():
        text = (ROOT / page).read_text()
        assert tables.filled(text, section) == text, f"{page}: run benchmarks/readme_table.py"


def test_contributing_quotes_the_code():
    """What shows how to add a kernel is that kernel, line by line."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    folders = {"csrc": ("h", "cpp"), "cuda": ("cu", "cuh"), "python": ("py",), "tests": ("py",)}
    files = (f for folder, ends in folders.items() for end in ends for f in (ROOT / folder).rglob(f"*.{end}"))
    lines = {line.strip() for f in files if f.name != "test_guide.py" for line in f.read_text().splitlines()}
    for block in re.findall(r"```(?:cpp|python)\n(.*?)```", text, re.S):
        quoted = [line.split("  //")[0].strip() for line in block.splitlines()]
        assert [q for q in quoted if q and q != "..." and q not in lines] == []


@pytest.mark.parametrize("page", sorted(p.relative_to(ROOT).as_posix() for p in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]))
def test_links_lead_somewhere(page):
    here = (ROOT / page).parent
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)#][^)]*)\)", text):
        if "://" not in target:
            assert (here / target.split("#")[0]).exists(), target
