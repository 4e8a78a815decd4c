"""Every Python block of README and docs runs; ``python no-run`` blocks are compiled only.

A page's blocks share one namespace, in an empty folder that has the repository's ``schedules``.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page):
    text = page.read_text()
    for match in BLOCK.finditer(text):
        line = text[: match.start()].count("\n") + 1
        yield match[1].split(), "\n" * line + match[2]


def test_the_readme_names_every_page():
    text = (ROOT / "README.md").read_text()
    missing = [page.name for page in PAGES[1:] if f"](docs/{page.name})" not in text]
    assert not missing


def test_a_marked_block_is_found():
    found = BLOCK.findall(
        "a\n```python no-run\nx = 1\n```\n```python\ny\n```\n```yaml\nz: 1\n```\n"
    )
    assert found == [(" no-run", "x = 1\n"), ("", "y\n")]


@pytest.mark.parametrize("page", [pytest.param(p, id=p.name) for p in PAGES if p.exists()])
def test_snippets(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "schedules").symlink_to(ROOT / "schedules")
    namespace = {"__name__": "__docs__"}
    for marks, source in blocks(page):
        code = compile(source, str(page), "exec")
        if "no-run" not in marks:
            exec(code, namespace)
