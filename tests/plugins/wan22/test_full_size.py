"""The published tensor lists, and full-size files of every kind opened without their weights."""

import json
import subprocess
import sys
from math import prod

import pytest
from full_size import MODELS, SCHEDULE, transformer, umt5, write_all, write_safetensors

from gatekit_wan22 import layout_transformer, layout_umt5, read_header, read_sizes
from gatekit_wan22.sizes import PUBLISHED, TransformerSizes, expected_shapes
from gatekit_wan22.sizes_umt5 import UMT5Sizes, read_umt5_sizes, umt5_shapes

WEIGHTS = sum(prod(shape) for shape in transformer("i2v-a14b").values())
COUNTS = {"t2v-a14b": 1095, "i2v-a14b": 1095, "ti2v-5b": 825}


@pytest.mark.parametrize("name", MODELS)
def test_lists_of_the_published_transformers(name):
    shapes = transformer(name)
    dim, ffn, layers, into, out = MODELS[name]
    sizes = TransformerSizes(dim, ffn, layers, into, out, 4096)
    assert len(shapes) == COUNTS[name] and sizes in PUBLISHED
    assert expected_shapes(sizes) == shapes
    theirs = layout_transformer.official_to_diffusers(shapes)
    assert len(theirs) == len(shapes) and not theirs.keys() & {"head.modulation"}
    assert layout_transformer.diffusers_to_official(theirs) == shapes


def test_list_of_umt5_xxl():
    shapes = umt5()
    assert len(shapes) == 242
    theirs = layout_umt5.official_to_diffusers(shapes)
    assert umt5_shapes(UMT5Sizes(256384, 4096, 10240, 24, 64, 64, 32)) == theirs


def test_sizes_of_full_headers(tmp_path):
    for name, (dim, ffn, layers, into, out) in MODELS.items():
        path = write_safetensors(
            tmp_path / f"{name}.safetensors", transformer(name), lambda _: "BF16"
        )
        assert read_sizes(read_header(path)) == TransformerSizes(dim, ffn, layers, into, out, 4096)
    path = write_safetensors(tmp_path / "umt5.safetensors", umt5(), lambda _: "BF16")
    assert read_umt5_sizes(read_header(path)).layers == 24


RUN = """
import contextlib, io, json, pathlib, sys
from gatekit.cli import call

def peak():
    text = pathlib.Path("/proc/self/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) * 1024

results = []
for arguments in json.loads(sys.argv[1]):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = call(arguments)
    results.append([code, out.getvalue()])
heavy = sorted({"torch", "diffusers", "transformers"} & set(sys.modules))
print(json.dumps([results, peak(), heavy]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="sparse files, and memory from /proc")
def test_full_size_files_are_planned_and_inspected(tmp_path):
    """All kinds, one process: no torch, and less memory than 500 MB for all of them."""
    files = write_all(tmp_path)
    commands = []
    for i, (use, path) in enumerate(files.values()):
        schedule = tmp_path / f"{i}.yaml"
        schedule.write_text(SCHEDULE.format(use=use, file=path))
        commands += [["inspect", str(path)], ["plan", str(schedule)]]
    disk = sum(f.stat().st_blocks * 512 for f in tmp_path.rglob("*") if f.is_file())
    size = sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file())
    assert size > 140e9 and disk < 10e6
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(commands)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    results, peak, heavy = json.loads(done.stdout)
    assert peak < 500e6 and not heavy
    stored = ["Q2_K", "Q5_K_S", "fp16", "fp8_e4m3fn_scaled", "fp32", "bf16"]
    for storage, inspected, planned in zip(stored, results[::2], results[1::2], strict=True):
        assert inspected[0] == planned[0] == 0, (storage, inspected, planned)
        assert f"storage: {storage}, " in inspected[1]
        assert "known as: Wan 2.2 I2V A14B, one expert" in inspected[1]
        assert f"weights: {WEIGHTS:,}" in inspected[1]
        assert "expert: high" in inspected[1]
        assert storage in planned[1]


def test_the_sparse_pth_is_what_torch_reads(tmp_path):
    import torch
    from full_size import write_pth

    shapes = {"a": (3, 5), "b.weight": (7,), "c": ()}
    path = write_pth(tmp_path / "small.pth", shapes)
    theirs = torch.load(path, mmap=True, weights_only=True)
    assert {n: tuple(t.shape) for n, t in theirs.items()} == shapes
    assert {t.dtype for t in theirs.values()} == {torch.bfloat16}
    mine = read_header(path).tensors
    assert {n: t.shape for n, t in mine.items()} == shapes
