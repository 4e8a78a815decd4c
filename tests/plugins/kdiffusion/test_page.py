"""The page's own code runs; elsewhere it cannot, for want of the package."""

import re
from pathlib import Path

import gatekit

PAGE = Path(__file__).parents[3] / "docs" / "k-diffusion.md"


def test_the_snippet_prints_what_the_table_says(capsys):
    text = PAGE.read_text()
    (code,) = re.findall(r"```python no-run\n(.*?)```", text, re.DOTALL)
    exec(compile(code, str(PAGE), "exec"), {})
    printed = re.findall(
        r"^(\w+) +mean (\S+) lifted, (\S+) directly", capsys.readouterr().out, re.M
    )
    assert printed == re.findall(r"^\| `(\w+)` \| (\d\.\d\d) \| (\d\.\d\d) \|$", text, re.M)
    assert len(printed) == 4


def test_every_function_is_in_the_table():
    text = PAGE.read_text()
    names = {n.split("/")[1] for n in gatekit.list_samplers() if n.startswith("k_diffusion/")}
    assert all(f"`{name}`" in text for name in names)
