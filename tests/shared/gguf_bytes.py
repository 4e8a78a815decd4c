"""Random blocks of each GGUF type, and what gguf-py decodes them to."""

import gguf
import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from gatekit_wan22.blocks import DECODERS

TYPES = sorted(set(DECODERS) - {"Q8_K"})
HALVES = {  # where each type's float16 numbers are
    **dict.fromkeys(TYPES, (0,)),
    **{"Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,)},
    **dict.fromkeys(("Q4_K", "Q5_K", "Q4_1", "Q5_1"), (0, 2)),
}


def blocks_of(name, count, finite=False):
    """Random bytes; ``finite`` with scales of about 0.01."""
    rng = np.random.default_rng(count)
    data = rng.integers(0, 256, (count, GGML_QUANT_SIZES[GGMLQuantizationType[name]][1]), np.uint8)
    for at in HALVES[name] if finite else ():
        scales = rng.normal(scale=0.01, size=(count, 1)).astype(np.float16)
        data[:, at : at + 2] = scales.view(np.uint8)
    return torch.from_numpy(data.reshape(-1))


def by_gguf_py(data, name):
    with np.errstate(all="ignore"):
        found = gguf.quants.dequantize(data.numpy().copy(), GGMLQuantizationType[name])
    return torch.from_numpy(found.reshape(-1))
