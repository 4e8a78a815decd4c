"""Weight files that the arms need: names, bits, and those that are not shipped made once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import gatekit
from gatekit_tinywan.family import WEIGHTS
from gatekit_tinywan.study.cell import digest
from gatekit_tinywan.train.quantise import MIXES, MORE, is_matrix, kind_of, quantise, write_gguf

GGUF_KINDS: tuple[str, ...] = (*MIXES, *MORE)
KINDS: tuple[str, ...] = ("fp16", "fp8", "Q8_0", "Q6_K", "Q5_K_S", "Q4_K", "Q3_K", "Q2_K")
TEXTS: Mapping[str, str] = {
    "fp16": "tinywan_umt5_fp16.safetensors",
    "fp8": "tinywan_umt5_fp8.safetensors",
    "Q4": "tinywan_umt5_Q4_0.gguf",
}
EXPERTS: tuple[str, ...] = ("high", "low")
TOKENIZER = "tokenizer/tokenizer.json"  # found beside a GGUF that carries none
# Of Q4_K, a row of the small text encoder's matrices (128) is half a block; of Q4_0 it is four.
TEXT_BLOCK, TEXT_KIND = 32, "Q4_0"
FP8_MOST = 448.0  # largest finite float8_e4m3fn
Importance = Mapping[str, Mapping[str, np.ndarray]]


def file_of(expert: str, kind: str) -> str:
    """Name of an expert's file."""
    return f"tinywan_{expert}_{kind}.{'gguf' if kind in GGUF_KINDS else 'safetensors'}"


def spec_of(expert: str, kind: str) -> dict[str, str]:
    """As under ``variants`` of a schedule."""
    use = "gguf" if kind in GGUF_KINDS else "safetensors"
    return {"use": use, "expert": expert, "file": file_of(expert, kind)}


class Files:
    """The files of one study.

    Args:
        work: Folder of the study; what is made lies in ``weights-...`` there, named by what it is
            made from.
        given: Folders of ``--models-dir``; searched as a schedule's files are, before
            ``GATEKIT_MODELS`` and the shipped weights.
    """

    def __init__(self, work: Path, given: Sequence[Path] = ()) -> None:
        self.given, self._found = list(given), gatekit.finder(None, given, [WEIGHTS])
        hashes = [gatekit.file_identity(self._source(n))[2] for n in self._sources]
        self.made = work / f"weights-{digest(hashes)[:6]}"

    @property
    def folders(self) -> list[Path]:
        """What a schedule is given as ``models_dir`` to find them."""
        return [*([self.made] if self.made.is_dir() else []), *self.given]

    @property
    def _sources(self) -> list[str]:
        return [*(file_of(e, "fp16") for e in EXPERTS), TEXTS["fp16"]]

    def find(self, name: str) -> Path | None:
        """A file, made or there before."""
        made = self.made / name
        return made if made.is_file() else self._found.find(name)

    def _source(self, name: str) -> Path:
        found = self._found.find(name)
        if found is None:
            raise gatekit.WeightsError(
                "a file of the small model is missing",
                value=name,
                remedy="give its folder with --models-dir or in GATEKIT_MODELS",
            )
        return found

    @cached_property
    def _shapes(self) -> dict[str, int]:
        """Tensor -> number of weights; both experts are of one size."""
        from safetensors import safe_open

        with safe_open(self._source(file_of("high", "fp16")), framework="np") as file:
            shapes = {n: file.get_slice(n).get_shape() for n in file.keys()}  # noqa: SIM118
        return {n: int(np.prod(s)) for n, s in shapes.items()}

    def bits(self, kind: str) -> float:
        """Mean stored bits a weight of an expert, files made or not."""
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        def each(name: str) -> float:
            if kind in GGUF_KINDS:
                block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind_of(name, kind)]]
                return 8.0 * size / block
            return 8.0 if kind == "fp8" and is_matrix(name) else 16.0

        return sum(each(n) * count for n, count in self._shapes.items()) / self.parameters

    @property
    def parameters(self) -> int:
        """Weights of an expert."""
        return sum(self._shapes.values())

    def lacking(
        self, kinds: Sequence[str] = KINDS, texts: Sequence[str] = tuple(TEXTS)
    ) -> list[str]:
        """Names of files that are to be made."""
        names = [file_of(e, k) for k in kinds for e in EXPERTS] + [TEXTS[t] for t in texts]
        return [name for name in names if self.find(name) is None]

    def make(
        self,
        names: Sequence[str],
        importance: Callable[[], Importance] | None,
        say: Callable[[str], None] = print,
    ) -> None:
        """Make these files; each is there whole or not at all.

        Args:
            names: From ``lacking``.
            importance: Gives, by expert and matrix, what GGUF errors are weighed with; asked once,
                if anything is to be made that it matters for.
            say: Takes a line a file.
        """
        weighed = [n for n in names if n.endswith(".gguf") and n != TEXTS["Q4"]]
        weights = importance() if importance is not None and weighed else {}
        self.made.mkdir(parents=True, exist_ok=True)
        for name in names:
            partial = self.made / f".{name}.part"
            expert = next((e for e in EXPERTS if name.startswith(f"tinywan_{e}_")), None)
            tensors, metadata = _read(
                self._source(file_of(expert, "fp16") if expert else TEXTS["fp16"])
            )
            if expert is None:
                (self.made / TOKENIZER).parent.mkdir(exist_ok=True)
                (self.made / TOKENIZER).write_text(metadata["tokenizer_json"])
            if name.endswith(".safetensors"):
                chosen = is_matrix if expert else _is_text_matrix(tensors)
                _write_fp8(partial, tensors, metadata, chosen)
            elif expert is None:
                _write_text_gguf(partial, tensors, int(metadata["text_length"]))
            else:
                mix = name.removeprefix(f"tinywan_{expert}_").removesuffix(".gguf")
                arrays = {k: v.float().numpy() for k, v in tensors.items()}
                write_gguf(partial, arrays, mix, weights.get(expert))
            partial.replace(self.made / name)
            say(f"made {name}")


def _read(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return {k: file.get_tensor(k) for k in file.keys()}, file.metadata()  # noqa: SIM118


def _is_text_matrix(tensors: Mapping[str, Any]) -> Callable[[str], bool]:
    return lambda name: tensors[name].ndim == 2 and tensors[name].shape[1] % TEXT_BLOCK == 0


def _write_fp8(
    path: Path,
    tensors: Mapping[str, Any],
    metadata: Mapping[str, str],
    chosen: Callable[[str], bool],
) -> None:
    """Chosen matrices as float8_e4m3fn with one scale each (ComfyUI's ``fp8_scaled``)."""
    import torch
    from safetensors.torch import save_file

    out: dict[str, Any] = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    for name, tensor in tensors.items():
        if not chosen(name):
            out[name] = tensor.contiguous()
            continue
        scale = tensor.float().abs().max().clamp(min=1e-12) / FP8_MOST
        out[name] = (tensor.float() / scale).to(torch.float8_e4m3fn).contiguous()
        out[name.removesuffix("weight") + "scale_weight"] = scale.reshape(1)
    save_file(out, path, metadata=dict(metadata))


def _write_text_gguf(path: Path, tensors: Mapping[str, Any], length: int) -> None:
    """The text encoder under llama.cpp's names, its matrices in ``TEXT_KIND``."""
    from gguf import GGUFWriter
    from gguf.constants import GGMLQuantizationType

    from gatekit_wan22 import layout_umt5

    named = layout_umt5.diffusers_to_gguf(layout_umt5.official_to_diffusers(dict(tensors)))
    chosen = _is_text_matrix(named)
    writer = GGUFWriter(path, "t5encoder")
    writer.add_quantization_version(2)
    writer.add_uint32("text_length", length)
    for name, tensor in named.items():
        array = tensor.float().numpy()
        if chosen(name):
            blocks = quantise(array, TEXT_KIND)
            writer.add_tensor(name, blocks, raw_dtype=GGMLQuantizationType[TEXT_KIND])
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
