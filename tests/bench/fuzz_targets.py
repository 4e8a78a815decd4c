"""What is fuzzed: each target takes bytes and may only return, or raise one of gatekit's errors.

Of an input the last byte says how large the file is that the rest begins: files of weights are
longer than their headers, and only in a long file can a header claim what would fill the memory.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
LENGTHS = (0, 1 << 16, 1 << 30, 1 << 34)  # of the sparse file; 0: no longer than the input
AS_IS = b"\0"


def write(folder: Path, name: str, data: bytes) -> Path:
    """The input as a file, made longer as its last byte says."""
    path = folder / name
    content = data[:-1]
    with path.open("wb") as stream:
        stream.write(content)
        stream.truncate(max(len(content), LENGTHS[data[-1] % len(LENGTHS)] if data else 0))
    return path


def weights(name: str) -> Callable[[bytes, Path], None]:
    """What ``gatekit plan`` and ``gatekit inspect`` read of a weight file, and of its tokenizer."""

    def read(data: bytes, folder: Path) -> None:
        from gatekit_wan22.family import WanFamily
        from gatekit_wan22.gguf_tokenizer import read_gguf_tokenizer
        from gatekit_wan22.header import read_header
        from gatekit_wan22.tokenizer import check_tokenizer, find_tokenizer

        path = write(folder, name, data)
        header = read_header(path)
        WanFamily.describe_file(path)
        WanFamily.component_facts(path)
        if (place := find_tokenizer(header, None)) is not None:
            check_tokenizer(header, place)
            if header.format == "gguf":
                with contextlib.suppress(ValueError):  # its caller makes it one of gatekit's
                    read_gguf_tokenizer(place)

    return read


def sentencepiece(data: bytes, folder: Path) -> None:
    """A ``spiece.model``; ``open_tokenizer`` makes an error of gatekit's of any exception."""
    from gatekit_wan22.sentencepiece_file import read_sentencepiece

    refused = (ValueError, IndexError, TypeError, AttributeError, KeyError, struct.error)
    with contextlib.suppress(*refused):
        read_sentencepiece(data)


def schedule(data: bytes, folder: Path) -> None:
    """A schedule file, planned."""
    from gatekit.load import load_schedule
    from gatekit.resolver import resolve

    path = folder / "fuzzed.yaml"
    path.write_bytes(data)
    resolve(load_schedule(path), device="cpu")


def carried(data: bytes, folder: Path) -> None:
    """What an mp4 or a PNG carries, planned as when it is run again."""
    from gatekit.embed import of_text
    from gatekit.load import of_carried
    from gatekit.resolver import resolve

    path = folder / "fuzzed.mp4"
    resolve(of_carried(of_text(data.decode("utf-8", "replace"), path), path), device="cpu")


def text(value: str) -> bytes:
    """A string of a GGUF."""
    return struct.pack("<Q", len(value)) + value.encode()


def tensor(name: str, shape: list[int], kind: int = 0, offset: int = 0) -> bytes:
    """A tensor's entry of a GGUF."""
    numbers = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + numbers + struct.pack("<IQ", kind, offset)


def gguf_seeds() -> list[bytes]:
    """Small GGUF headers with every kind of value, a vocabulary, and a folded tensor."""
    keys = [
        text("general.architecture") + struct.pack("<I", 8) + text("wan"),
        text("general.alignment") + struct.pack("<II", 4, 32),
        text("comfy.gguf.orig_shape.a") + struct.pack("<IIQ3i", 9, 5, 3, 2, 4, 8),
        text("tokenizer.ggml.model") + struct.pack("<I", 8) + text("t5"),
        text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + text("<s>") + text("a"),
        text("tokenizer.ggml.scores") + struct.pack("<IIQ2f", 9, 6, 2, 0.0, -1.0),
        text("tokenizer.ggml.token_type") + struct.pack("<IIQ2i", 9, 5, 2, 3, 1),
        text("long") + struct.pack("<IIQ", 9, 8, 70) + text("x") * 70,
        *(
            text("k") + struct.pack("<I", k) + bytes(n)
            for k, n in ((0, 1), (7, 1), (10, 8), (12, 8))
        ),
    ]
    tensors = [tensor("a", [32, 2]), tensor("blocks.0.ffn.0.weight", [256, 4], 10, 256)]
    found = []
    for some_keys, some in (
        ([], []),
        (keys[:3], tensors[:1]),
        (keys[3:8], tensors),
        (keys, tensors),
    ):
        head = b"GGUF" + struct.pack("<IQQ", 3, len(some), len(some_keys))
        found += [head + b"".join(some_keys) + b"".join(some) + n for n in (AS_IS, b"\1", b"\3")]
    return found


def safetensors_seeds() -> list[bytes]:
    """Small safetensors headers: a matrix, fp8 with its scale, metadata, marks of each part."""
    one = {"dtype": "F16", "shape": [4, 2], "data_offsets": [0, 16]}
    fp8 = {
        "a.weight": {"dtype": "F8_E4M3", "shape": [4, 4], "data_offsets": [0, 16]},
        "a.scale_weight": {"dtype": "F32", "shape": [], "data_offsets": [16, 20]},
        "scaled_fp8": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [20, 22]},
    }
    marks = {
        name: {"dtype": "F16", "shape": [2, 2], "data_offsets": [8 * i, 8 * i + 8]}
        for i, name in enumerate(
            ("patch_embedding.weight", "head.modulation", "blocks.0.self_attn.norm_q.weight",
             "decoder.conv1.weight", "shared.weight", "token_embedding.weight", "spiece_model",
             "blocks.0.ffn.0.lora_A.weight", "blocks.0.ffn.0.lora_B.weight")
        )
    }  # fmt: skip
    metadata = {"__metadata__": {"format": "pt", "tokenizer_json": "{}", "latents_mean": "[0.0]"}}
    found = []
    for header in ({}, {"a": one}, metadata | {"a": one}, fp8, marks):
        raw = json.dumps(header, separators=(",", ":")).encode()
        found += [struct.pack("<Q", len(raw)) + raw + n for n in (b"\1", b"\3")]
    return found


def pth_seeds() -> list[bytes]:
    """A small state dict as ``torch.save`` writes it, and its pickle in another archive."""
    import torch

    whole = io.BytesIO()
    torch.save({"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16)}, whole)
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("m/data.pkl", pickle.dumps({"a": 1, "b": [1.5, "x", None]}, 2))
    return [whole.getvalue() + AS_IS, other.getvalue() + AS_IS]


def schedule_seeds() -> list[bytes]:
    """The shipped schedules, and small ones with what YAML and schedules can do."""
    shipped = [path.read_bytes() for path in sorted((ROOT / "schedules").glob("*.yaml"))]
    small = b"""version: 1
name: a
family: {use: tinywan}
text_encoder: {file: tinywan_umt5_fp16.safetensors}
vae: {file: tinywan_vae_fp16.safetensors}
variants: {a: {use: gguf, file: tinywan_high_Q2_K.gguf}}
sigmas: {use: karras, steps: 4}
phases: [{name: a, until: {step: 2}, variant: a, sampler: heun, strategy: {use: restart}},
  {name: b, variant: a, sampler: {use: unipc}, guidance: {use: cfg, scale: 2}, history: auto}]
"""
    return [
        *shipped,
        small,
        small.replace(b"{step: 2}", b"{log_snr: -1.0}").replace(b"karras", b"beta"),
        small.replace(b", steps: 4", b"").replace(b"{name: b", b"{name: b, steps: 3"),
        b"extends: fuzzed.yaml\n",
        b"extends: ../../etc/passwd\nvae: {file: /etc/passwd}\n",
        b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\nd: !!python/name:os.system x\n<<: *a\n",
        b"? [a, b]\n: 1e999\nb: 0x_\nc: .nan\nd: 2001-01-01\ne: !!int x\n--- a\n%YAML 1.1\n",
    ]


def carried_seeds() -> list[bytes]:
    """The metadata of a result, whole and with its parts of other kinds."""
    data = {
        "version": 1,
        "name": "a",
        "family": {"use": "tinywan"},
        "text_encoder": {"file": "tinywan_umt5_fp16.safetensors"},
        "vae": {"file": "tinywan_vae_fp16.safetensors"},
        "variants": {"a": {"use": "gguf", "file": "tinywan_high_Q2_K.gguf"}},
        "sigmas": {"use": "karras", "steps": 4},
        "phases": [{"name": "a", "variant": "a", "sampler": "heun"}],
    }
    inputs = {"prompt": "a", "seed": 1, "image": {"file": "../a.png", "sha256": "0"}}
    whole = {"format": "gatekit-video-1", "schedule": data, "inputs": inputs, "weights": {"a": "0"}}
    outside = data | {"vae": {"file": "/etc/passwd"}}
    changes = ({}, {"schedule": outside}, {"inputs": []}, {"schedule": None})
    return [json.dumps(whole | change).encode() for change in changes]


def sentencepiece_seeds() -> list[bytes]:
    """A unigram model of three pieces."""
    piece = b"\n\x03<s>\x15\0\0\0\0\x18\x03"
    pieces = b"\n" + bytes([len(piece)]) + piece
    return [pieces * 3 + b"\x12\x05\x18\x01\x98\x02\x01" + b"\x1a\x04\x12\x02ab" + AS_IS]


TARGETS: dict[str, Callable[[bytes, Path], None]] = {
    "gguf": weights("fuzzed.gguf"),
    "safetensors": weights("fuzzed.safetensors"),
    "pth": weights("fuzzed.pth"),
    "schedule": schedule,
    "carried": carried,
    "sentencepiece": sentencepiece,
}
SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "gguf": gguf_seeds,
    "safetensors": safetensors_seeds,
    "pth": pth_seeds,
    "schedule": schedule_seeds,
    "carried": carried_seeds,
    "sentencepiece": sentencepiece_seeds,
}


def scratch() -> Path | None:
    """Where to put the files: in memory where there is a place for it."""
    place = Path("/dev/shm")
    return place if place.is_dir() and os.access(place, os.W_OK) else None
