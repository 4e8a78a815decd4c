"""GGUF files by the real GGML quantiser, with the mixes that public Wan files use.

``Q2_K``: the value projections in Q3_K, every other block matrix in Q2_K. ``Q5_K_S``: every
block matrix in Q5_K. Everything else (norms, biases, modulation, embeddings, head) stays in
F16, the 5-D patch embedding in F32.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from gatekit import install_extra

MATRICES = tuple(
    [f"{a}.{m}.weight" for a in ("self_attn", "cross_attn") for m in "qkvo"]
    + ["ffn.0.weight", "ffn.2.weight"]
)
MIXES: dict[str, tuple[str, str]] = {"Q2_K": ("Q3_K", "Q2_K"), "Q5_K_S": ("Q5_K", "Q5_K")}
# Files that are not shipped: every block matrix in one type.
MORE: dict[str, tuple[str, str]] = {k: (k, k) for k in ("Q3_K", "Q4_K", "Q6_K", "Q8_0")}


def is_matrix(name: str) -> bool:
    """Whether a tensor of Wan's own name is a matrix of a block."""
    return name.startswith("blocks.") and name.endswith(MATRICES)


def kind_of(name: str, mix: str) -> str:
    """GGML's type of a tensor in a mix of ``MIXES`` or ``MORE``."""
    if is_matrix(name):
        value_type, other_type = (MIXES | MORE)[mix]
        return value_type if name.endswith(".v.weight") else other_type
    return "F32" if name == "patch_embedding.weight" else "F16"


@cache
def _ggml() -> Any:
    spec = importlib.util.find_spec("libggml")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"the package libggml-python is missing; {install_extra('quant')}"
        )
    folder = Path(spec.submodule_search_locations[0])
    name = next(iter(sorted(folder.rglob("libggml-base.*"))))
    library = ctypes.CDLL(str(name))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        *[ctypes.c_int64] * 3,
        ctypes.c_void_p,
    ]
    library.ggml_quantize_init.argtypes = [ctypes.c_int]
    return library


def quantise(weight: np.ndarray, kind: str, importance: np.ndarray | None = None) -> np.ndarray:
    """Blocks of a float32 matrix ``[rows, columns]``: uint8 ``[rows, bytes a row]``.

    ``importance`` ``[columns]`` weighs the squared errors of each column (GGML's "imatrix").
    """
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    type_ = GGMLQuantizationType[kind]
    block, block_bytes = GGML_QUANT_SIZES[type_]
    rows, columns = weight.shape
    if columns % block:
        raise ValueError(f"{columns} columns are no multiple of {block}: {kind} cannot hold them")
    source = np.ascontiguousarray(weight, dtype=np.float32)
    if importance is not None:
        if importance.shape != (columns,):
            raise ValueError(f"importance of shape {importance.shape} for {columns} columns")
        importance = np.ascontiguousarray(importance, dtype=np.float32)
    weights = None if importance is None else importance.ctypes.data
    blocks = np.zeros((rows, columns // block * block_bytes), dtype=np.uint8)
    library = _ggml()
    library.ggml_quantize_init(int(type_))
    written = library.ggml_quantize_chunk(
        int(type_), source.ctypes.data, blocks.ctypes.data, 0, rows, columns, weights
    )
    if written != blocks.nbytes:
        raise RuntimeError(f"the quantiser wrote {written} bytes where {blocks.nbytes} belong")
    return blocks


def write_gguf(
    path: Path,
    tensors: Mapping[str, np.ndarray],
    mix: str,
    importance: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write official-layout tensors as GGUF of architecture ``wan``.

    ``importance`` holds ``[columns]`` by matrix (see ``quantise``); all or none.
    """
    from gguf import GGUFWriter
    from gguf.constants import GGMLQuantizationType

    writer = GGUFWriter(path, "wan")
    writer.add_quantization_version(2)
    for name, tensor in tensors.items():
        kind = kind_of(name, mix)
        if kind == "F32":
            writer.add_tensor(name, tensor.astype(np.float32))
        elif kind == "F16":
            writer.add_tensor(name, tensor.astype(np.float16))
        else:
            weights = None if importance is None else importance[name]
            blocks = quantise(tensor.astype(np.float32), kind, weights)
            writer.add_tensor(name, blocks, raw_dtype=GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
