"""Tiny Wan models of the real architecture with random weights, and files of them."""

from __future__ import annotations

import ctypes
import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType


def random_wan(in_channels=16, layers=2, dim=256, ffn=512, text_dim=32, seed=0, out_channels=16):
    """diffusers' transformer with every parameter random, none left at zero or one."""
    from diffusers import WanTransformer3DModel

    model = WanTransformer3DModel(
        num_attention_heads=dim // 128,
        ffn_dim=ffn,
        num_layers=layers,
        in_channels=in_channels,
        out_channels=out_channels,
        text_dim=text_dim,
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            scale = 0.3 if "scale_shift" in name or p.ndim == 1 else p[0].numel() ** -0.5
            noise = torch.randn(p.shape, generator=generator) * scale
            p.copy_(noise + ("norm" in name and name.endswith("weight")))
    return model.eval().requires_grad_(False)


def official(model):
    from gatekit_wan22 import layout_transformer

    state = layout_transformer.diffusers_to_official(model.state_dict())
    return {name: value.contiguous() for name, value in state.items()}


_libggml = None


def ggml_quantise(weights: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    """Blocks of a float32 matrix by GGML's own quantiser, as gguf-py wants them."""
    global _libggml
    if _libggml is None:
        import libggml

        root = Path(libggml.__file__).parent
        _libggml = ctypes.CDLL(str(next(root.rglob("libggml-base.so"))))
        _libggml.ggml_quantize_chunk.restype = ctypes.c_size_t
        _libggml.ggml_quantize_chunk.argtypes = [
            ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p,
            ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
        ]  # fmt: skip
        _libggml.ggml_quantize_init.argtypes = [ctypes.c_int]
    _libggml.ggml_quantize_init(int(kind))
    weights = np.ascontiguousarray(weights, dtype=np.float32)
    rows, columns = weights.shape
    block, block_bytes = GGML_QUANT_SIZES[kind]
    out = np.zeros((rows, columns // block * block_bytes), dtype=np.uint8)
    done = _libggml.ggml_quantize_chunk(
        int(kind), weights.ctypes.data, out.ctypes.data, 0, rows, columns, None
    )
    assert done == out.nbytes
    return out


def write_gguf(path, state, kinds=None, *, arch="wan", prefix="", fold=None, strings=()):
    """A GGUF of an official state dict.

    ``kinds(name, tensor)`` gives a type name for each tensor; None is F32.
    ``fold`` reshapes the patch embedding; ``arch`` None leaves the key out.
    """
    writer = gguf.GGUFWriter(path, arch or "none")
    if arch is None:
        writer.kv_data[0].pop("general.architecture")
    for key, value in strings:
        writer.add_string(key, value)
    for name, tensor in state.items():
        array = tensor.float().numpy()
        if fold and name == "patch_embedding.weight":
            array = array.reshape(fold)
        kind = GGMLQuantizationType[(kinds(name, tensor) if kinds else None) or "F32"]
        if kind.name == "F32":
            writer.add_tensor(prefix + name, array)
        elif kind.name == "F16":
            writer.add_tensor(prefix + name, array.astype(np.float16))
        elif kind.name == "BF16":
            raw = tensor.bfloat16().view(torch.uint8).numpy()
            writer.add_tensor(prefix + name, raw, raw_dtype=kind)
        else:
            writer.add_tensor(prefix + name, ggml_quantise(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_shards(folder, state, number=3, index=True, stem="diffusion_pytorch_model"):
    """A folder of ``number`` shards of a state dict, as the hub's downloads are."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    names = list(state)
    weight_map = {}
    for i in range(number):
        file = f"{stem}-{i + 1:05d}-of-{number:05d}.safetensors"
        part = {n: state[n] for n in names[i::number]}
        save_file(part, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    if index:
        total = sum(t.nbytes for t in state.values())
        text = json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map})
        (folder / f"{stem}.safetensors.index.json").write_text(text)
    return folder


def is_matrix(name: str) -> bool:
    """Whether public Wan files quantise this tensor: the ten matrices of each block."""
    return name.startswith("blocks.") and name.endswith(".weight") and ".norm" not in name


def open_file(path, **params):
    """The variant of a file, by its suffix."""
    from gatekit_wan22 import GGUFVariant, SafetensorsVariant

    cls = GGUFVariant if str(path).endswith(".gguf") else SafetensorsVariant
    return cls(cls.Params(file=path, **params))


def small_umt5(path):
    """A UMT5 encoder of width 32 with its tokenizer, for prompts of up to 24 tokens."""
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import UMT5Config, UMT5EncoderModel

    from gatekit_wan22 import layout_umt5

    words = ["<pad>", "</s>", "<unk>", "▁", "▁a", "▁cat", *"abcdefghijklmnopqrstuvwxyz"]
    tokenizer = Tokenizer(models.Unigram([(w, -1.0) for w in words], 2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    umt5 = UMT5EncoderModel(
        UMT5Config(vocab_size=len(words), d_model=32, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    )
    state = {n: p.clone() for n, p in layout_umt5.diffusers_to_official(umt5.state_dict()).items()}
    save_file(state, path, metadata={"tokenizer_json": tokenizer.to_str(), "text_length": "24"})
    return path


def private_bytes():
    """Memory of this process that no file backs."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    pytest.skip("needs /proc")


def rise_of(action):
    """How far private memory rose above its level before, at most."""
    before, highest, stop = private_bytes(), 0, threading.Event()

    def watch():
        nonlocal highest
        while not stop.is_set():
            highest = max(highest, private_bytes())
            time.sleep(0.0005)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        action()
    finally:
        stop.set()
        thread.join()
    return max(highest, private_bytes()) - before


@pytest.fixture(scope="session")
def tools():
    return SimpleNamespace(
        random_wan=random_wan,
        official=official,
        write_gguf=write_gguf,
        write_shards=write_shards,
        ggml_quantise=ggml_quantise,
        is_matrix=is_matrix,
        open_file=open_file,
        small_umt5=small_umt5,
        private_bytes=private_bytes,
        rise_of=rise_of,
    )


@pytest.fixture(scope="session")
def wan(tmp_path_factory):
    """A text-to-video model, its official state dict, and a safetensors file of it."""
    from safetensors.torch import save_file

    model = random_wan()
    state = official(model)
    path = tmp_path_factory.mktemp("wan") / "wan.safetensors"
    save_file(state, path)
    return SimpleNamespace(model=model, state=state, path=path)


@pytest.fixture(scope="session")
def inputs():
    """State, sigma and text for one evaluation."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 16, 3, 4, 6, generator=generator)
    text = torch.randn(1, 20, 32, generator=generator)
    return SimpleNamespace(x=x, sigma=0.7, text=text)
