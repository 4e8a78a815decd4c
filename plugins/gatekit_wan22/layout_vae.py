"""Names of the tensors of Wan's VAEs (2.1 and 2.2): the official ones, and those of diffusers.

The official decoder of 2.1 numbers its upsampling layers through (residual blocks and
resamplers in one list), diffusers groups them by resolution; the grouping is read off the
names. In 2.2 both group them, and only the names differ. The module stands alone (standard
library only), so that training scripts can use it anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")

_TOP = {
    "conv1": "quant_conv",
    "conv2": "post_quant_conv",
    "encoder.conv1": "encoder.conv_in",
    "decoder.conv1": "decoder.conv_in",
    "encoder.head.0": "encoder.norm_out",
    "decoder.head.0": "decoder.norm_out",
    "encoder.head.2": "encoder.conv_out",
    "decoder.head.2": "decoder.conv_out",
}
_MIDDLE = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}
_RESIDUAL = {
    "residual.0": "norm1",
    "residual.2": "conv1",
    "residual.3": "norm2",
    "residual.6": "conv2",
    "shortcut": "conv_shortcut",
}
_TOP_BACK = {b: a for a, b in _TOP.items()}
_MIDDLE_BACK = {b: a for a, b in _MIDDLE.items()}
_RESIDUAL_BACK = {b: a for a, b in _RESIDUAL.items()}
_LEAF = re.compile(r"(.+)\.(weight|bias|gamma)")
_UP = re.compile(r"decoder\.upsamples\.(\d+)\.(.+)")
_UP_BACK = re.compile(r"decoder\.up_blocks\.(\d+)\.(resnets|upsamplers)\.(\d+)\.(.+)")
# Layers grouped by resolution, as in 2.2: official, and diffusers'.
_NESTED = re.compile(r"(encoder\.down|decoder\.up)samples\.(\d+)\.(?:down|up)samples\.(\d+)\.(.+)")
_NESTED_BACK = re.compile(
    r"(encoder\.down|decoder\.up)_blocks\.(\d+)\.(resnets\.(\d+)|(?:down|up)sampler)\.(.+)"
)


def is_grouped(names: Iterable[str]) -> bool:
    """Whether these are names of a VAE 2.2, in either layout."""
    return any(
        _NESTED.fullmatch(name)
        or ((found := _NESTED_BACK.fullmatch(name)) and (found[4] is None or "down" in found[1]))
        for name in names
    )


def _groups(names: Iterable[str]) -> dict[int, str]:
    """Official decoder layer number -> diffusers' module, by where the resamplers stand."""
    layers: set[int] = set()
    resamplers: set[int] = set()
    for name in names:
        if found := _UP.fullmatch(name):
            layers.add(int(found[1]))
            if found[2].startswith(("resample.", "time_conv.")):
                resamplers.add(int(found[1]))
    place, group, within = {}, 0, 0
    for layer in sorted(layers):
        if layer in resamplers:
            place[layer] = f"decoder.up_blocks.{group}.upsamplers.0"
            group, within = group + 1, 0
        else:
            place[layer] = f"decoder.up_blocks.{group}.resnets.{within}"
            within += 1
    return place


def _groups_back(names: Iterable[str]) -> dict[str, int]:
    """Diffusers' decoder module -> official layer number."""
    parts: set[tuple[int, int, int]] = set()
    names = list(names)
    if is_grouped(names):
        return _nested_samplers(names)
    for name in names:
        if found := _UP_BACK.fullmatch(name):
            parts.add((int(found[1]), int(found[2] == "upsamplers"), int(found[3])))
    kinds = ("resnets", "upsamplers")
    return {
        f"decoder.up_blocks.{block}.{kinds[kind]}.{index}": layer
        for layer, (block, kind, index) in enumerate(sorted(parts))
    }


def _nested_samplers(names: Iterable[str]) -> dict[str, int]:
    """Number of a 2.2 resampler in its official group: it comes after the residual blocks."""
    place: dict[str, int] = {}
    for name in names:
        if found := _NESTED_BACK.fullmatch(name):
            side = found[1].rpartition(".")[2]
            key = f"{found[1]}_blocks.{found[2]}.{side}sampler"
            place[key] = max(place.get(key, 0), int(found[4] or -1) + 1)
    return place


def _to_diffusers(name: str, place: Mapping[int, str]) -> str | None:
    split = _LEAF.fullmatch(name)
    if not split:
        return None
    stem, leaf = split[1], split[2]
    if stem in _TOP:
        return f"{_TOP[stem]}.{leaf}"
    if found := re.fullmatch(r"(encoder|decoder)\.middle\.([012])\.(.+)", stem):
        inner = _RESIDUAL.get(found[3], found[3])
        return f"{found[1]}.mid_block.{_MIDDLE[found[2]]}.{inner}.{leaf}"
    if found := _NESTED.fullmatch(stem):
        group, inner = f"{found[1]}_blocks.{found[2]}", found[4]
        if inner.startswith(("resample.", "time_conv")):
            return f"{group}.{found[1].rpartition('.')[2]}sampler.{inner}.{leaf}"
        return f"{group}.resnets.{found[3]}.{_RESIDUAL.get(inner, inner)}.{leaf}"
    if found := re.fullmatch(r"encoder\.downsamples\.(\d+)\.(.+)", stem):
        return f"encoder.down_blocks.{found[1]}.{_RESIDUAL.get(found[2], found[2])}.{leaf}"
    if (found := _UP.fullmatch(stem)) and int(found[1]) in place:
        return f"{place[int(found[1])]}.{_RESIDUAL.get(found[2], found[2])}.{leaf}"
    return None


def _to_official(name: str, place: Mapping[str, int], grouped: bool) -> str | None:
    split = _LEAF.fullmatch(name)
    if not split:
        return None
    stem, leaf = split[1], split[2]
    if stem in _TOP_BACK:
        return f"{_TOP_BACK[stem]}.{leaf}"
    if found := re.fullmatch(r"(encoder|decoder)\.mid_block\.(\w+\.\d+)\.(.+)", stem):
        if found[2] not in _MIDDLE_BACK:
            return None
        inner = _RESIDUAL_BACK.get(found[3], found[3])
        return f"{found[1]}.middle.{_MIDDLE_BACK[found[2]]}.{inner}.{leaf}"
    if grouped and (found := _NESTED_BACK.fullmatch(stem)):
        side, inner = found[1].rpartition(".")[2], found[5]
        at = found[4] or place[f"{found[1]}_blocks.{found[2]}.{side}sampler"]
        inner = _RESIDUAL_BACK.get(inner, inner)
        return f"{found[1]}samples.{found[2]}.{side}samples.{at}.{inner}.{leaf}"
    if found := re.fullmatch(r"encoder\.down_blocks\.(\d+)\.(.+)", stem):
        return f"encoder.downsamples.{found[1]}.{_RESIDUAL_BACK.get(found[2], found[2])}.{leaf}"
    if found := _UP_BACK.fullmatch(stem):
        layer = place[f"decoder.up_blocks.{found[1]}.{found[2]}.{found[3]}"]
        return f"decoder.upsamples.{layer}.{_RESIDUAL_BACK.get(found[4], found[4])}.{leaf}"
    return None


def official_to_diffusers(state_dict: Mapping[str, T]) -> dict[str, T]:
    """Rename a state dict; names that are no official VAE names stay as they are."""
    place = _groups(state_dict)
    return {_to_diffusers(name, place) or name: value for name, value in state_dict.items()}


def diffusers_to_official(state_dict: Mapping[str, T]) -> dict[str, T]:
    """Rename a state dict; names that are no diffusers VAE names stay as they are."""
    place, grouped = _groups_back(state_dict), is_grouped(state_dict)
    return {_to_official(name, place, grouped) or name: value for name, value in state_dict.items()}
