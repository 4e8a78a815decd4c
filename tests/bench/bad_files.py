"""Ways in which a weight file can be wrong, and what refusing each costs.

``python tests/bench/bad_files.py`` prints seconds and peak memory of ``gatekit plan`` on each,
under a limit of 1 GB of address space above what Python starts with. Most files are of full size
and sparse, so what believes their headers runs out of memory or time.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from full_size import (
    SCHEDULE,
    transformer,
    umt5,
    write_fp8_scaled,
    write_gguf,
    write_pth,
    write_safetensors,
    write_shards,
)

Make = Callable[[Path], Path]
I2V = transformer("i2v-a14b")
GB = 1 << 30
NAME = "blocks.7.ffn.0.weight"
SHARD = "diffusion_pytorch_model-00002-of-00006.safetensors"


def fp16(_: str) -> str:
    return "F16"


# -- safetensors


def raw(header: bytes, size: int = 0, length: int | None = None) -> Make:
    """A safetensors file of any header."""

    def make(folder: Path) -> Path:
        path = folder / "wan.safetensors"
        with path.open("wb") as stream:
            stream.write(struct.pack("<Q", len(header) if length is None else length) + header)
            stream.truncate(max(size, 8 + len(header)))
        return path

    return make


def entry(text: str, size: int = 4096) -> Make:
    """A safetensors file with one tensor, whose entry is this text."""
    return raw(b'{"head.modulation": ' + text.encode() + b"}", size)


def of(shapes: dict, kind=fp16) -> Make:
    """A safetensors file of full size with these tensors."""
    return lambda folder: write_safetensors(folder / "wan.safetensors", shapes, kind)


def without(*starts: str) -> dict:
    return {n: s for n, s in I2V.items() if not n.startswith(starts)}


def cut(write: Make, left: int) -> Make:
    """The same file, its last bytes missing."""

    def make(folder: Path) -> Path:
        path = write(folder)
        with path.open("r+b") as stream:
            stream.truncate(path.stat().st_size - left if left > 0 else -left)
        return path

    return make


def content(data: bytes, name: str = "wan.safetensors") -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


def changed_fp8(change: Callable[[dict], None]) -> Make:
    """An fp8_scaled file with its header changed."""

    def make(folder: Path) -> Path:
        path = write_fp8_scaled(folder / "wan.safetensors", I2V)
        with path.open("r+b") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
            change(header)
            text = json.dumps(header, separators=(",", ":")).encode()
            stream.seek(8)
            stream.write(text.ljust(length))
        return path

    return make


def scale_of_blocks(header: dict) -> None:
    """One scale for every 128 columns, where a matrix lay that is there no more."""
    prefix = "model.diffusion_model.blocks.0."
    begin, _ = header.pop(f"{prefix}self_attn.q.weight")["data_offsets"]
    scale = header[f"{prefix}ffn.0.scale_weight"]
    scale |= {"shape": [13824, 40], "data_offsets": [begin, begin + 13824 * 40 * 4]}


# -- GGUF


def gguf(*, version=3, tensors=0, keys=0, body=b"", size=0) -> Make:
    data = b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + body

    def make(folder: Path) -> Path:
        path = folder / "wan.gguf"
        with path.open("wb") as stream:
            stream.write(data)
            stream.truncate(max(size, len(data)))
        return path

    return make


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def tensor(name: str, shape: list[int], kind: int = 0, offset: int = 0) -> bytes:
    numbers = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + numbers + struct.pack("<IQ", kind, offset)


def architecture(name: str) -> Make:
    """A whole A14B under the architecture of another model."""

    def make(folder: Path) -> Path:
        path = write_gguf(folder / "wan.gguf", I2V, fp16)
        with path.open("r+b") as stream:
            data = stream.read(80)
            stream.seek(0)
            stream.write(data.replace(b"wan", name.encode(), 1))
        return path

    return make


# -- folders


def shards(change: Callable[[Path], object]) -> Make:
    def make(folder: Path) -> Path:
        root = write_shards(folder / "model", I2V, fp16)
        change(root)
        return root

    return make


def index(change: Callable[[dict], object] | str) -> Make:
    def edit(folder: Path) -> None:
        path = folder / "diffusion_pytorch_model.safetensors.index.json"
        if isinstance(change, str):
            path.write_text(change)
            return
        data = json.loads(path.read_text())
        change(data["weight_map"])
        path.write_text(json.dumps(data))

    return shards(edit)


def two_models(folder: Path) -> Path:
    write_safetensors(folder / "high.safetensors", I2V, fp16)
    write_safetensors(folder / "low.safetensors", I2V, fp16)
    return folder


def empty_folder(folder: Path) -> Path:
    (folder / "model").mkdir()
    return folder / "model"


def mixed_shards(folder: Path) -> None:
    write_safetensors(folder / SHARD, transformer("ti2v-5b"), fp16)


# -- .pth


def archive(parts: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> Make:
    def make(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "wan.pth", "w", how) as stream:
            for name, data in parts.items():
                stream.writestr(f"model/{name}", data)
        return folder / "wan.pth"

    return make


class Hostile:
    """Would end the process that unpickles it."""

    def __reduce__(self):
        import os

        return os._exit, (0,)


def pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    pickle.Pickler(buffer, 2).dump(value)
    return buffer.getvalue()


def pth(change: Callable[[bytearray], object]) -> Make:
    def make(folder: Path) -> Path:
        path = write_pth(folder / "wan.pth", {"a": (2, 3)})
        data = bytearray(path.read_bytes())
        change(data)
        path.write_bytes(data)
        return path

    return make


def long_directory(data: bytearray) -> None:
    at = data.rfind(b"PK\6\6")
    data[at + 40 : at + 48] = struct.pack("<Q", 1 << 40)


KEY = text("general.name")
CASES: dict[str, Make] = {
    "empty": content(b""),
    "three bytes": content(b"abc"),
    "a web page": content(b"<!doctype html> log in to download this file\n" * 9),
    "header longer than the file": raw(b"{}", length=1 << 40),
    "header of 2^63 bytes": raw(b"{}", length=1 << 63),
    "header of 64 MB": raw(b"{" + b" " * (64 << 20) + b"}"),
    "header of ten million lists": raw(b'{"a": [' + b"[]," * 10_000_000 + b"[]]}"),
    "header of nested objects": raw(b'{"a":' * 1_000_000),
    "header no JSON": raw(b"{not json"),
    "header with a number of a million digits": entry(
        '{"dtype": "F16", "shape": [' + "9" * 10**6 + "]}"
    ),
    "metadata no object": raw(b'{"__metadata__": [1]}'),
    "a name twice": raw(b'{"a": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}, "a": {}}'),
    "tensors that overlap": raw(
        b'{"a": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]},'
        b' "b": {"dtype": "F16", "shape": [4], "data_offsets": [6, 14]}}',
        4096,
    ),
    "data truncated": cut(of(I2V), 1),
    "header truncated": cut(of(I2V), -5000),
    "offset past the end": entry(
        '{"dtype": "F16", "shape": [500000000000000], "data_offsets": [0, 1000000000000000]}'
    ),
    "ends before it begins": entry('{"dtype": "F16", "shape": [4], "data_offsets": [9, 1]}'),
    "shape below 0": entry('{"dtype": "F16", "shape": [-4], "data_offsets": [0, 8]}'),
    "shape of a fraction": entry('{"dtype": "F16", "shape": [4.5], "data_offsets": [0, 9]}'),
    "shape of infinity": entry('{"dtype": "F16", "shape": [1e999], "data_offsets": [0, 9]}'),
    "shape past 64 bits": entry(
        '{"dtype": "F16", "shape": [1099511627776, 1099511627776], "data_offsets": [0, 0]}'
    ),
    "shape of a thousand numbers": entry(
        '{"dtype": "F16", "shape": [' + "1," * 999 + '1], "data_offsets": [0, 2]}'
    ),
    "shape and bytes disagree": entry('{"dtype": "F16", "shape": [5], "data_offsets": [0, 8]}'),
    "a type nobody knows": entry('{"dtype": "F4", "shape": [1, 2, 256], "data_offsets": [0, 256]}'),
    "tensors missing": of(without("blocks.7.ffn")),
    "a block missing": of(without("blocks.17.")),
    "tensors unexpected": of(I2V | {"blocks.3.adapter.weight": (4, 4)}),
    "another width inside": of(I2V | {NAME: (14336, 3072)}),
    "a LoRA": of({"diffusion_model.blocks.0.ffn.0.lora_A.weight": (16, 5120)}),
    "a text encoder": of(umt5()),
    "a Flux model": of({"double_blocks.0.img_attn.qkv.weight": (9216, 3072)}),
    "a VAE": of({"decoder.conv1.weight": (384, 16, 3, 3, 3)}),
    "Wan 2.1 with CLIP": of(I2V | {"img_emb.proj.1.weight": (1280, 1280)}),
    "a VACE model": of(I2V | {"vace_blocks.0.modulation": (1, 6, 5120)}),
    "the model of another task": of(transformer("t2v-a14b")),
    "the model of another family size": of(transformer("ti2v-5b")),
    "a scale for every block of weights": changed_fp8(scale_of_blocks),
    "GGUF cut in its header": cut(lambda f: write_gguf(f / "wan.gguf", I2V, fp16), -9000),
    "GGUF cut in its data": cut(lambda f: write_gguf(f / "wan.gguf", I2V, fp16), 4096),
    "GGUF of a Flux model": architecture("flu"),
    "GGUF of a language model": gguf(tensors=1, body=tensor("blk.0.attn_q.weight", [4]), size=4096),
    "GGUF version 1": gguf(version=1, size=4096),
    "GGUF big-endian": gguf(version=3 << 24, size=4096),
    "GGUF of 2^60 tensors": gguf(tensors=1 << 60, size=4096),
    "GGUF of 400 million tensors": gguf(tensors=400_000_000, size=10 * GB),
    "GGUF of 2^40 keys": gguf(keys=1 << 40, size=4096),
    "GGUF of 500 million keys": gguf(keys=500_000_000, size=10 * GB),
    "GGUF of 20,000 empty keys": gguf(keys=20_000, size=10 * GB),
    "GGUF key twice": gguf(keys=2, body=(KEY + struct.pack("<I?", 7, True)) * 2, size=4096),
    "safetensors header of 30 MB of zeros": raw(b"{\xf0\x9f\x98\x80", 10 * GB, length=30 << 20),
    "GGUF name of 4 GB": gguf(keys=1, body=struct.pack("<Q", 1 << 32), size=9 * GB),
    "GGUF value of 4 GB": gguf(keys=1, body=KEY + struct.pack("<IQ", 8, 1 << 32), size=9 * GB),
    "GGUF values of 15 MB, a thousand": gguf(
        keys=1000, body=KEY + struct.pack("<IQ", 8, 15 << 20), size=16 * GB
    ),
    "GGUF array of 2^30 strings": gguf(
        keys=1, body=KEY + struct.pack("<IIQ", 9, 8, 1 << 30), size=10 * GB
    ),
    "GGUF array of arrays": gguf(keys=1, body=KEY + struct.pack("<IIQ", 9, 9, 1), size=4096),
    "GGUF value type 99": gguf(keys=1, body=KEY + struct.pack("<I", 99), size=4096),
    "GGUF dimensions past 64 bits": gguf(tensors=1, body=tensor("a", [1 << 62] * 2), size=4096),
    "GGUF offset past the end": gguf(tensors=1, body=tensor("a", [4], 0, 1 << 63), size=4096),
    "GGUF of 9 dimensions": gguf(tensors=1, body=tensor("a", [1] * 9), size=4096),
    "GGUF of 4 billion dimensions": gguf(
        tensors=1, body=text("a") + struct.pack("<I", 0xFFFFFFFF), size=4096
    ),
    "GGUF type 200": gguf(tensors=1, body=tensor("a", [4], 200), size=4096),
    "GGUF rows that are no blocks": gguf(tensors=1, body=tensor("a", [255], 10), size=4096),
    "GGUF name twice": gguf(tensors=2, body=tensor("a", [4]) * 2, size=4096),
    "GGUF tensors that overlap": gguf(
        tensors=2, body=tensor("a", [8]) + tensor("b", [8], 0, 16), size=4096
    ),
    "shard missing": shards(lambda f: (f / SHARD).unlink()),
    "shard truncated": shards(lambda f: cut(lambda _: f / SHARD, 1)(f)),
    "shard of another model": shards(mixed_shards),
    "shard of another format": shards(lambda f: gguf(size=4096)(f).replace(f / SHARD)),
    "index names what no shard holds": index(lambda m: m.update({"a.b": SHARD})),
    "index leaves out a tensor": index(lambda m: m.pop(NAME)),
    "index climbs out of its folder": index(lambda m: m.update({"a": "../../x.safetensors"})),
    "index names no file": index(lambda m: m.update({"a": 7})),
    "index a list": index("[]"),
    "index without a map": index('{"weight_map": ["a"]}'),
    "index of 20 MB": index('{"weight_map": {' + " " * (20 << 20) + "}}"),
    "folder of two models": two_models,
    "empty folder": empty_folder,
    ".pth with code in it": archive({"data.pkl": pickled({"a": Hostile()})}),
    ".pth compressed, 200 MB in 200 kB": archive(
        {"data.pkl": bytes(200 << 20)}, zipfile.ZIP_DEFLATED
    ),
    ".pth whose pickle has 15 million operations": archive({"data.pkl": b")" * (15 << 20)}),
    ".pth whose pickle is 20 MB": archive({"data.pkl": bytes(20 << 20)}),
    ".pth of a hundred thousand entries": archive({f"data/{i}": b"" for i in range(100_000)}),
    ".pth whose directory claims 1 TB": pth(long_directory),
    ".pth keyed by nested tuples": archive(
        {"data.pkl": b"\x80\x02})" + b"q\x00h\x00\x86" * 80 + b"K\x01s."}
    ),
    ".pth without its storages": archive(
        {"data.pkl": b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n)Rs."}
    ),
    ".pth without a pickle": archive({"word/document.xml": b"<x/>"}),
    ".pth of before 1.6": content(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "wan.pth"),
    ".pth truncated": cut(lambda f: write_pth(f / "wan.pth", {"a": (9, 9)}), 30),
}

CHILD = """
import contextlib, io, json, pathlib, resource, sys, time
from gatekit.cli import call
import gatekit.resolver, gatekit_wan22.family, gatekit_wan22.variant, gguf, numpy

def kilobytes(key):
    text = pathlib.Path("/proc/self/status").read_text()
    return int(text.split(key)[1].split()[0])

limit = kilobytes("VmSize:") * 1024 + (1 << 30)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for schedule in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    before, started = kilobytes("VmRSS:"), time.perf_counter()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = call(["plan", schedule])
    seconds, peak = time.perf_counter() - started, kilobytes("VmHWM:") - before
    print(json.dumps([code, out.getvalue(), err.getvalue(), seconds, peak * 1024]))
"""


def plan_all(folder: Path) -> dict[str, tuple[Path, int, str, str, float, int]]:
    """Case -> its file, exit code, stdout, stderr, seconds and extra bytes of ``gatekit plan``."""
    paths: list[Path] = []
    schedules: list[str] = []
    for i, make in enumerate(CASES.values()):
        inside = folder / str(i)
        inside.mkdir()
        paths.append(make(inside))
        use = {".gguf": "gguf", ".pth": "pth"}.get(paths[-1].suffix, "safetensors")
        schedules.append(str(folder / f"{i}.yaml"))
        Path(schedules[-1]).write_text(SCHEDULE.format(use=use, file=paths[-1]))
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=json.dumps(schedules),
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == len(CASES), done.stderr[-3000:]
    return {
        name: (path, *json.loads(line))
        for name, path, line in zip(CASES, paths, lines, strict=True)
    }


def main() -> None:
    """Print the table, and the slowest and the largest."""
    with tempfile.TemporaryDirectory() as folder:
        found = plan_all(Path(folder))
        for name, (_, code, _, said, seconds, extra) in found.items():
            message = said.replace(folder, "").strip()[:150]
            print(f"{code} {seconds:6.3f} s {extra / 1e6:6.1f} MB  {name}: {message}")
    seconds, extra = max(f[4] for f in found.values()), max(f[5] for f in found.values())
    print(f"{len(found)} files; slowest {seconds:.2f} s, largest extra memory {extra / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
