"""Tensor lists of the published models, and sparse files of full size with such headers.

The lists are built from a model's published widths alone, apart from the code under test.
The files have every byte of their headers and none of their weights: 28 GB take some 200 kB
of disk.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
from collections import OrderedDict
from math import prod
from pathlib import Path

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

SCHEDULE = """version: 1
name: one
family: {{use: wan22, task: i2v-a14b}}
text_encoder: {{file: absent.safetensors}}
vae: {{file: absent.safetensors}}
variants: {{one: {{use: {use}, expert: high, file: '{file}'}}}}
sigmas: {{use: shifted_linear, steps: 4, shift: 5.0}}
phases: [{{name: all, variant: one, sampler: {{use: euler}}}}]
"""

# dim, ffn, layers, channels in, channels out
MODELS = {
    "t2v-a14b": (5120, 13824, 40, 16, 16),
    "i2v-a14b": (5120, 13824, 40, 36, 16),
    "ti2v-5b": (3072, 14336, 30, 48, 48),
}
_BLOCK = """self_attn.q dd d|self_attn.k dd d|self_attn.v dd d|self_attn.o dd d|self_attn.norm_q d
self_attn.norm_k d|norm3 d d|cross_attn.q dd d|cross_attn.k dd d|cross_attn.v dd d|cross_attn.o dd d
cross_attn.norm_q d|cross_attn.norm_k d|ffn.0 fd f|ffn.2 df d"""


def transformer(name: str) -> dict[str, tuple[int, ...]]:
    """Official name -> shape: 1,095 tensors of A14B, 825 of TI2V-5B."""
    dim, ffn, layers, into, out = MODELS[name]
    length = {"d": dim, "f": ffn}
    block: dict[str, tuple[int, ...]] = {"modulation": (1, 6, dim)}
    for entry in _BLOCK.replace("\n", "|").split("|"):
        tensor, *shapes = entry.split(" ")
        for leaf, letters in zip(("weight", "bias"), shapes, strict=False):
            block[f"{tensor}.{leaf}"] = tuple(length[letter] for letter in letters)
    shapes = {f"blocks.{i}.{n}": s for i in range(layers) for n, s in block.items()}
    shapes |= {"patch_embedding.weight": (dim, into, 1, 2, 2), "patch_embedding.bias": (dim,)}
    for tensor, columns, rows in (
        ("text_embedding.0", 4096, dim),
        ("text_embedding.2", dim, dim),
        ("time_embedding.0", 256, dim),
        ("time_embedding.2", dim, dim),
        ("time_projection.1", dim, 6 * dim),
        ("head.head", dim, 4 * out),
    ):
        shapes |= {f"{tensor}.weight": (rows, columns), f"{tensor}.bias": (rows,)}
    return shapes | {"head.modulation": (1, 2, dim)}


def umt5() -> dict[str, tuple[int, ...]]:
    """Official name -> shape of UMT5-XXL's encoder: 242 tensors."""
    square, wide = (4096, 4096), (10240, 4096)
    block = {f"attn.{m}.weight": square for m in "qkvo"} | {
        "ffn.gate.0.weight": wide,
        "ffn.fc1.weight": wide,
        "ffn.fc2.weight": wide[::-1],
        "norm1.weight": (4096,),
        "norm2.weight": (4096,),
        "pos_embedding.embedding.weight": (32, 64),
    }
    shapes = {f"blocks.{i}.{n}": s for i in range(24) for n, s in block.items()}
    return shapes | {"token_embedding.weight": (256384, 4096), "norm.weight": (4096,)}


def is_matrix(name: str) -> bool:
    """One of the 400 (or 300) tensors that public files quantise."""
    return name.startswith("blocks.") and name.endswith(".weight") and "norm" not in name


def q2_k(name: str) -> str:
    """The mix of files called Q2_K."""
    return "F16" if not is_matrix(name) else "Q3_K" if ".v." in name else "Q2_K"


def q5_k_s(name: str) -> str:
    """The mix of files called Q5_K_S."""
    return "Q5_K" if is_matrix(name) else "F32"


def write_gguf(path: Path, shapes, kind_of) -> Path:
    """A sparse GGUF."""
    entries, offset = b"", 0
    for name, shape in shapes.items():
        kind = GGMLQuantizationType[kind_of(name)]
        block, block_bytes = GGML_QUANT_SIZES[kind]
        text = name.encode()
        entries += struct.pack("<Q", len(text)) + text + struct.pack("<I", len(shape))
        entries += struct.pack(f"<{len(shape)}Q", *reversed(shape))
        entries += struct.pack("<IQ", int(kind), offset)
        offset += -(-(prod(shape) // block * block_bytes) // 32) * 32
    key, value = b"general.architecture", b"wan"
    head = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), 1)
    head += struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(value)) + value
    content = head + entries
    return _sparse(path, content, -(-len(content) // 32) * 32 + offset)


BYTES = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1}


def write_safetensors(path: Path, shapes, kind_of) -> Path:
    """A sparse safetensors file."""
    header, offset = {}, 0
    for name, shape in shapes.items():
        end = offset + prod(shape) * BYTES[kind_of(name)]
        header[name] = {"dtype": kind_of(name), "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return _sparse(path, struct.pack("<Q", len(text)) + text, 8 + len(text) + offset)


def write_fp8_scaled(path: Path, shapes) -> Path:
    """A sparse fp8_scaled file, under ComfyUI's prefix."""
    prefix, kinds, named = "model.diffusion_model.", {}, {}
    for name, shape in shapes.items():
        named[prefix + name] = shape
        kinds[prefix + name] = "F8_E4M3" if is_matrix(name) else "F16"
        if is_matrix(name):
            for scale in ("scale_weight", "scale_input"):
                key = prefix + name.replace("weight", scale)
                named[key], kinds[key] = (), "F32"
    named[f"{prefix}scaled_fp8"], kinds[f"{prefix}scaled_fp8"] = (2,), "F8_E4M3"
    return write_safetensors(path, named, kinds.__getitem__)


def write_shards(folder: Path, shapes, kind_of, number: int = 6) -> Path:
    """A sparse folder of shards with an index."""
    folder.mkdir(parents=True)
    names, weight_map = list(shapes), {}
    for i in range(number):
        file = f"diffusion_pytorch_model-{i + 1:05d}-of-{number:05d}.safetensors"
        part = names[i * len(names) // number : (i + 1) * len(names) // number]
        write_safetensors(folder / file, {n: shapes[n] for n in part}, kind_of)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    return folder


class _Storage:
    def __init__(self, key: str, count: int) -> None:
        self.key, self.count = key, count


class _Tensor:
    """Pickles as torch pickles a contiguous tensor."""

    def __init__(self, key: str, shape: tuple[int, ...]) -> None:
        self.storage, self.shape = _Storage(key, prod(shape)), shape

    def __reduce__(self):
        from torch._utils import _rebuild_tensor_v2

        strides = tuple(prod(self.shape[i + 1 :]) for i in range(len(self.shape)))
        return _rebuild_tensor_v2, (self.storage, 0, self.shape, strides, False, OrderedDict())


def write_pth(path: Path, shapes) -> Path:
    """A sparse bf16 file as ``torch.save`` lays it out; the archive's checksums are of no data."""
    import torch

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            if isinstance(obj, _Storage):
                return ("storage", torch.BFloat16Storage, obj.key, "cpu", obj.count)
            return None

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump({n: _Tensor(str(i), s) for i, (n, s) in enumerate(shapes.items())})
    parts = [
        ("data.pkl", buffer.getvalue(), buffer.tell()),
        ("byteorder", b"little", 6),
        ("version", b"3\n", 2),
    ]
    parts += [(f"data/{i}", b"", 2 * prod(s)) for i, s in enumerate(shapes.values())]
    directory = b""
    with path.open("wb") as stream:
        for name, content, size in parts:
            text, at = f"model/{name}".encode(), stream.tell()
            common = struct.pack("<HHHHHIII", 45, 0, 0, 0, 0, 0, size, size)
            pad = -(at + 34 + len(text)) % 64
            extra = struct.pack("<HH", 0x4246, pad) + b"Z" * pad
            stream.write(b"PK\3\4" + common + struct.pack("<HH", len(text), len(extra)))
            stream.write(text + extra + content)
            stream.seek(size - len(content), 1)
            wide = struct.pack("<HHQ", 1, 8, at)
            directory += b"PK\1\2" + struct.pack("<H", 45) + common
            directory += struct.pack("<HHHHHII", len(text), len(wide), 0, 0, 0, 0, 0xFFFFFFFF)
            directory += text + wide
        at, number = stream.tell(), len(parts)
        stream.write(directory)
        end = stream.tell()
        stream.write(b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, number, number,
                                             len(directory), at))  # fmt: skip
        stream.write(b"PK\6\7" + struct.pack("<IQI", 0, end, 1))
        stream.write(b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF,
                                             0xFFFFFFFF, 0))  # fmt: skip
    return path


def _sparse(path: Path, content: bytes, size: int) -> Path:
    with path.open("wb") as stream:
        stream.write(content)
        stream.truncate(size)
    return path


def write_all(folder: Path, name: str = "i2v-a14b") -> dict[str, tuple[str, Path]]:
    """Kind -> (``use``, path) of one expert in every kind of file."""
    shapes = transformer(name)
    return {
        "GGUF Q2_K": ("gguf", write_gguf(folder / "high_noise_Q2_K.gguf", shapes, q2_k)),
        "GGUF Q5_K_S": ("gguf", write_gguf(folder / "high_noise_Q5_K_S.gguf", shapes, q5_k_s)),
        "safetensors fp16": (
            "safetensors",
            write_safetensors(folder / "high_noise_fp16.safetensors", shapes, lambda _: "F16"),
        ),
        "safetensors fp8_scaled": (
            "safetensors",
            write_fp8_scaled(folder / "high_noise_fp8.safetensors", shapes),
        ),
        "official folder fp32": (
            "safetensors",
            write_shards(folder / "root" / "high_noise_model", shapes, lambda _: "F32"),
        ),
        ".pth bf16": ("pth", write_pth(folder / "high_noise.pth", shapes)),
    }
