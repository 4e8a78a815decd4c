"""Scales of fp8 files, folded into the tensors that they scale.

Two layouts are in use, both by ComfyUI. W = weight x scale in each.

``fp8_scaled``: ``X.scale_weight``, sometimes ``X.scale_input``, and one tensor ``scaled_fp8``
whose type, not its content, says which fp8 the file holds.

The newer one: ``X.weight_scale``, sometimes ``X.input_scale``, and for each layer a tensor
``X.comfy_quant`` of JSON bytes, or one metadata key ``_quantization_metadata`` with
``{"layers": {X: {"format": ...}}}``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from gatekit import WeightsError

from .header import FLOAT_TYPES, Header, TensorInfo, printable

_WEIGHT = (".scale_weight", ".weight_scale")
_INPUT = (".scale_input", ".input_scale")
_MARKER, _LAYER, _METADATA = "scaled_fp8", ".comfy_quant", "_quantization_metadata"
READABLE = ("float8_e4m3fn", "float8_e5m2")
_LONGEST = 4096  # bytes of one layer's JSON


def fold_scales(header: Header) -> Header:
    """The header without tensors of scales and marks, the scales where they belong.

    A scale whose weight is not there stays a tensor of its own, so that it is noticed.

    Raises:
        WeightsError: A quantisation other than fp8, or a scale of an unknown shape.
    """
    for layer, form in _formats(header):
        if form not in READABLE:
            raise WeightsError(
                f"'{printable(layer)}' is quantised as '{printable(str(form))}', "
                "which cannot be decoded",
                where=str(header.path),
                remedy="give a GGUF, fp8, fp16 or bf16 file",
            )
    tensors = dict(header.tensors)
    for name in header.tensors:
        if name.endswith(_LAYER) or name.rpartition(".")[2] == _MARKER:
            del tensors[name]
    for name, info in header.tensors.items():
        owner = name.rpartition(".")[0] + ".weight"
        if not name.endswith((*_WEIGHT, *_INPUT)) or owner not in tensors:
            continue
        del tensors[name]
        if name.endswith(_WEIGHT):
            _check(header, name, info, tensors[owner])
            tensors[owner] = replace(tensors[owner], scale=info)
        else:
            tensors[owner] = replace(tensors[owner], scale_input=info)
    return replace(header, tensors=tensors)


def _check(header: Header, name: str, scale: TensorInfo, weight: TensorInfo) -> None:
    one_a_row = scale.shape in ((weight.shape[:1]), (*weight.shape[:1], 1))
    if scale.type not in FLOAT_TYPES or not (scale.count == 1 or one_a_row):
        raise WeightsError(
            f"'{printable(name)}' is {scale.type} of shape {list(scale.shape)[:8]}, where one "
            "number, or one for each row, can be read",
            where=str(header.path),
            remedy="give a GGUF, fp8, fp16 or bf16 file",
        )


def _formats(header: Header) -> Iterator[tuple[str, Any]]:
    """(layer, format) of every layer that says how it is quantised."""
    try:
        given = header.metadata.get(_METADATA)
        layers = {} if given is None else json.loads(given)["layers"]
        for layer, entry in layers.items():
            yield layer, entry["format"]
        for name, info in header.tensors.items():
            if name.endswith(_LAYER):
                entry = json.loads(_content(header, info))
                yield name.removesuffix(_LAYER), entry["format"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise WeightsError(
            f"its quantisation metadata ({_METADATA} or {_LAYER}) cannot be read",
            where=str(header.path),
            remedy="download or copy the file again",
        ) from error


def _content(header: Header, info: TensorInfo) -> bytes:
    if info.nbytes > _LONGEST:
        raise ValueError("too long")
    with (info.file or header.path).open("rb") as stream:
        stream.seek(info.offset)
        return stream.read(info.nbytes)
