"""Folders of weights: which one a role means, and its shards as one header.

Known: Wan's official folders (``high_noise_model/``, ``low_noise_model/``, with text encoder
and VAE beside them as ``.pth``), diffusers' (``transformer/``, ``transformer_2/``,
``text_encoder/``, ``vae/``), and any folder of shards or of one weight file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from gatekit import WeightsError

from .header import AGAIN, Header, TensorInfo, file_size, printable

EXPERTS = (("high_noise_model", "low_noise_model"), ("transformer", "transformer_2"))
PARTS = {
    "text_encoder": ("text_encoder", re.compile(r"models_t5.*\.pth", re.IGNORECASE)),
    "vae": ("vae", re.compile(r"wan2\.\d_vae\.pth", re.IGNORECASE)),
}
USUAL = ("diffusion_pytorch_model", "model")
SUFFIXES = (".safetensors", ".gguf", ".pth", ".pt", ".bin")
INDEX = ".index.json"
LONGEST_INDEX = 16 << 20
MOST_SHARDS = 1_000
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.\w+)")


def is_shard(path: Path) -> bool:
    """Whether a file is one of several that are one model, by its name."""
    found = _SHARD.fullmatch(path.name)
    return found is not None and int(found[3]) > 1


def resolve_root(path: Path, role: str | None, expert: str | None) -> Path:
    """The file or folder that a model's root folder has for a role; ``path`` if it is no root.

    Args:
        path: What the schedule names.
        role: ``transformer``, ``text_encoder``, ``vae``, or None to leave it as it is.
        expert: ``high`` or ``low``, for the transformer.

    Raises:
        WeightsError: The root has two experts and none was named, or not the one named.
    """
    if role is None or not path.is_dir():
        return path
    if role in PARTS:
        folder, pattern = PARTS[role]
        if (path / folder).is_dir():
            return path / folder
        found = sorted(p for p in path.iterdir() if pattern.fullmatch(p.name))
        return found[0] if len(found) == 1 else path
    for pair in EXPERTS:
        there = [name for name in pair if (path / name).is_dir()]
        if not there:
            continue
        if expert is None and len(there) == 2:
            raise WeightsError(
                f"the folder holds two experts, {there[0]} and {there[1]}",
                where=str(path),
                remedy="add 'expert: high' or 'expert: low' to the variant",
            )
        wanted = there[0] if expert is None else pair[expert == "low"]
        if wanted not in there:
            raise WeightsError(
                f"the folder has no {wanted}, where its {expert}-noise expert would be",
                where=str(path),
                remedy="download it whole",
            )
        return path / wanted
    return path


def read_folder(path: Path, read_one: Callable[[Path], Header]) -> Header:
    """The header of a folder, of an index, or of the set that a shard belongs to.

    Raises:
        WeightsError: No weights, several models, a shard missing, or an index that lies.
    """
    if not path.is_dir():
        return (
            _read_index(path, path, read_one) if path.name.endswith(INDEX) else _set(path, read_one)
        )
    try:
        names = sorted(p.name for p in path.iterdir() if p.is_file())
    except OSError as error:
        raise WeightsError(
            f"cannot be read: {error.strerror or error}", where=str(path), remedy="check it"
        ) from error
    for stem in USUAL:
        if (index := f"{stem}.safetensors{INDEX}") in names:
            return _read_index(path, path / index, read_one)
        if (file := f"{stem}.safetensors") in names:
            return _single(path, path / file, read_one)
    indices = [n for n in names if n.endswith(INDEX)]
    weights = [n for n in names if n.endswith(SUFFIXES)]
    sets = {m[1] + m[4]: n for n in weights if (m := _SHARD.fullmatch(n))}
    loose = [n for n in weights if not _SHARD.fullmatch(n)]
    if len(indices) == 1:
        return _read_index(path, path / indices[0], read_one)
    if len(sets) == 1 and not loose and not indices:
        return replace(_set(path / next(iter(sets.values())), read_one), path=path)
    if len(loose) == 1 and not sets:
        return _single(path, path / loose[0], read_one)
    raise _unclear(path, indices or [*sets.values(), *loose])


def _unclear(path: Path, found: Sequence[str]) -> WeightsError:
    if found:
        names = ", ".join(printable(n) for n in found[:4])
        return WeightsError(
            f"a folder of {len(found)} models: {names}", where=str(path), remedy="name one of them"
        )
    inside = [p.name for p in sorted(path.iterdir()) if p.is_dir()]
    instead = f"name one of its folders: {', '.join(map(printable, inside[:6]))}" if inside else ""
    return WeightsError(
        "a folder without weight files",
        where=str(path),
        remedy=instead or "name the folder that holds the .safetensors files",
    )


def _single(folder: Path, file: Path, read_one: Callable[[Path], Header]) -> Header:
    header = read_one(file)
    return replace(header, path=folder, tensors=_placed(header))


def _placed(header: Header) -> dict[str, TensorInfo]:
    return {n: replace(t, file=header.path) for n, t in header.tensors.items()}


def _set(path: Path, read_one: Callable[[Path], Header]) -> Header:
    """The shards that belong to one of them, by the numbers in their names."""
    found = _SHARD.fullmatch(path.name)
    assert found is not None
    number = int(found[3])
    if not 1 <= number <= MOST_SHARDS:
        raise WeightsError("no shard of a model", where=str(path), remedy="name the folder")
    names = [f"{found[1]}-{i:05d}-of-{found[3]}{found[4]}" for i in range(1, number + 1)]
    return _merged(path, path.parent, names, read_one)


def _merged(
    path: Path, folder: Path, names: Iterable[str], read_one: Callable[[Path], Header]
) -> Header:
    """Several files as one header."""
    names = sorted(set(names))
    if missing := [n for n in names if not (folder / n).is_file()]:
        first = ", ".join(printable(n) for n in missing[:3])
        raise WeightsError(
            f"{len(missing)} of {len(names)} shards are missing: {first}",
            where=str(path),
            remedy="download them into the same folder",
        )
    tensors: dict[str, TensorInfo] = {}
    metadata: dict[str, Any] = {}
    total, forms = 0, set[str]()
    for name in names:
        header = read_one(folder / name)
        forms.add(header.format)
        if twice := tensors.keys() & header.tensors.keys():
            raise WeightsError(
                f"'{printable(min(twice))}' is in {printable(name)} and in another shard",
                where=str(path),
                remedy="the folder mixes several models; " + AGAIN,
            )
        tensors |= _placed(header)
        metadata = dict(header.metadata) | metadata
        total += header.file_bytes
    if len(forms) != 1:
        raise WeightsError(
            f"its shards are of several formats: {', '.join(sorted(forms))}",
            where=str(path),
            remedy="the folder mixes several models; " + AGAIN,
        )
    return Header(path, forms.pop(), total, tensors, metadata)


def _read_index(path: Path, index: Path, read_one: Callable[[Path], Header]) -> Header:
    def bad(message: str) -> WeightsError:
        return WeightsError(
            f"the index {printable(index.name)} {message}", where=str(path), remedy=AGAIN
        )

    if file_size(index) > LONGEST_INDEX:
        raise bad("is longer than that of any model")
    try:
        content: Any = json.loads(index.read_bytes())
        given: Any = content["weight_map"]
        if not isinstance(given, dict) or not given:
            raise TypeError("not an object")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise bad("is no JSON object with a 'weight_map'") from error
    weight_map = cast(dict[str, Any], given)
    for name, file in weight_map.items():
        if not isinstance(file, str) or not file.endswith(SUFFIXES):
            raise bad(f"gives '{printable(name)}' no weight file")
        if Path(file).name != file or "\\" in file or not file.isprintable():
            raise bad(f"names a file outside its folder: '{printable(file)}'")
    if len(set(weight_map.values())) > MOST_SHARDS:
        raise bad("names more shards than any model has")
    header = _merged(path, index.parent, weight_map.values(), read_one)
    for name, info in header.tensors.items():
        assert info.file is not None
        if weight_map.get(name) != info.file.name:
            raise bad(f"does not name '{printable(name)}', which is in {info.file.name}")
    if lost := weight_map.keys() - header.tensors.keys():
        name = min(lost)
        raise bad(
            f"lies: {printable(weight_map[name])} does not hold '{printable(name)}'"
            + (f", and {len(lost) - 1} more" if len(lost) > 1 else "")
        )
    return header
