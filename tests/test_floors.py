"""Each floor imports only from floors below it, or from its own without a circle.

And nothing that a plan needs imports torch: ``gatekit plan`` must answer at once.
"""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import gatekit

ROOT = Path(gatekit.__file__).parent
FLOORS = {
    0: (
        *("errors", "sizetext", "params", "suggest", "cache", "countdown", "check"),
        *("outside", "safeheader", "jsontext", "saying", "pluginlimit"),
    ),
    1: (
        *(
            "placement",
            "packing",
            "sealing",
            "filebytes",
            "unchanged",
            "chunks",
            "cargo",
            "carrier",
            "linear",
            "path",
            "multistep",
            "sigmas",
        ),
        *("deviates", "brownian", "noise"),
    ),
    2: (
        *("state", "execution", "variant", "family", "guidance", "sampler", "phase", "history"),
        *("metric", "stepcache", "guided"),
    ),
    3: (
        "schedule",
        "consistency",
        "hooks",
        "yamlsource",
        "yamlparse",
        "load",
        "document",
        "merge",
        "validate",
        "embed",
    ),
    4: (
        *("kinds", "registry", "lookup", "plan", "resolver", "boundaries", "allotment", "start"),
        *("explain", "identity", "measures", "executions"),
        *("device", "schema", "filefields", "capacity", "memoryplan"),
        *("sections", "components", "planvariants", "planphases"),
    ),
    5: (
        *("stage", "ledger", "crossing", "runner", "functional", "residency"),
        *("execute", "opening", "serving"),
        *("preflight", "progress", "denoising", "modelstage"),
        *("warm", "doctor", "determinism"),
        *("output", "mp4", "pictures", "clip", "target", "latent", "decoding", "provenance"),
        *("result", "runfolder", "plot"),
        *("checkpoint", "checkwriter", "hostcopies", "runlock", "sameness", "leases"),
        *("telling", "blame"),
    ),
    6: ("testing", "cli"),
}
FLOOR = {module: floor for floor, modules in FLOORS.items() for module in modules}


def for_types_only(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports(file, types=True):
    """Modules of gatekit that a file imports, inside functions too; ``types``: for types too."""
    waiting = [ast.parse(file.read_text())]
    while waiting:
        node = waiting.pop()
        if types or not for_types_only(node):
            waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            module = node.module or ""
            names = [module] if module != "gatekit" else [f"gatekit.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (n.split(".")[1] for n in names if n.startswith("gatekit."))


def modules():
    for file in sorted(ROOT.rglob("*.py")):
        name = file.relative_to(ROOT).with_suffix("").parts[0]
        if name != "__init__":
            yield name, file


def test_every_module_has_a_floor():
    found = {name for name, _ in modules()}
    assert found - set(FLOOR) == set(), "say in FLOORS where it belongs"


@pytest.mark.parametrize(("name", "file"), [pytest.param(n, f, id=str(f)) for n, f in modules()])
def test_imports_go_down(name, file):
    known = [used for used in imports(file) if used in FLOOR and used != name]
    above = [used for used in known if FLOOR[used] > FLOOR.get(name, 6)]
    assert not above, f"{name} (floor {FLOOR[name]}) imports {above}"


def test_no_circles():
    graph = {}
    for name, file in modules():
        used = imports(file, types=False)
        graph.setdefault(name, set()).update(u for u in used if u in FLOOR and u != name)
    list(TopologicalSorter(graph).static_order())


def test_plugins_use_the_public_door():
    plugins = ROOT.parent / "plugins"
    deeper = [
        f"{file}: {module}"
        for file in sorted(plugins.rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom)
        for module in [node.module or ""]
        if module.startswith("gatekit.") and module != "gatekit.testing"
    ]
    assert not deeper


def test_planning_does_not_import_torch():
    code = (
        "import sys, gatekit.registry as r\n"
        "found = r.registry()\n"
        "broken = {n: p.error for n, p in found.plugins.items() if p.error}\n"
        "assert not broken, broken\n"
        "assert {'euler', 'unipc'} <= set(found.samplers), found.samplers\n"
        "import gatekit.resolver, gatekit.load, gatekit.history, gatekit.noise, gatekit.runner\n"
        "import gatekit.functional\n"
        "heavy = [m for m in ('torch', 'diffusers', 'transformers', 'numpy') if m in sys.modules]\n"
        "assert 'torch' not in heavy and 'diffusers' not in heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
