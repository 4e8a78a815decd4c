"""What a file is that no role can use: how far it is a Wan model, and what it lacks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path

from gatekit import WeightsError

from .folders import EXPERTS, PARTS, SUFFIXES, resolve_root
from .header import Header, TensorInfo, printable, read_header
from .sizes import MARKS, PUBLISHED, TransformerSizes, expected_shapes, official_tensors
from .sizes import patch_channels as channels_of

LISTED = 20


def parts_of(path: Path) -> list[Path]:
    """What is in the root folder of a download, each of which can be inspected; else nothing."""
    if not path.is_dir():
        return []
    found = [path / name for pair in EXPERTS for name in pair if (path / name).is_dir()]
    others = [p for role in PARTS if (p := resolve_root(path, role, None)) != path]
    own = any(p.name.endswith(SUFFIXES) and p not in others for p in path.iterdir())
    if not found and others and own:  # a single model, in the root itself
        found = [path]
    return [*found, *others] if found else []


def describe_file(path: Path) -> list[str]:
    """Lines about a file whose header can be read: its tensors, and what a Wan model lacks."""
    try:
        header = read_header(path)
    except WeightsError:
        return []
    bits = 8 * header.tensor_bytes / max(header.parameters, 1)
    types = ", ".join(f"{kind} {number}" for kind, number in header.types.items())
    lines = [
        f"{header.format}: {len(header.tensors)} tensors ({types[:200]}), "
        f"{header.parameters:,} weights, {bits:.2f} bits a weight"
    ]
    tensors = official_tensors(header)
    if not any(name in tensors for name in MARKS) or (sizes := guess_sizes(tensors)) is None:
        return lines
    expected = expected_shapes(sizes)
    lines.append(f"seems to be: {sizes.published or 'a Wan model'}, {sizes}")
    lines += _listed("missing", expected.keys() - tensors.keys())
    lines += _listed("unexpected", tensors.keys() - expected.keys())
    wrong = [
        f"{name} {list(tensors[name].shape)}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in tensors and not _fits(name, tensors[name], shape)
    ]
    return lines + _listed("of the wrong shape", wrong)


def _fits(name: str, found: TensorInfo, shape: tuple[int, ...]) -> bool:
    if name == "patch_embedding.weight":  # converters fold it
        return found.count == prod(shape)
    return found.shape == shape


def _listed(what: str, names: Iterable[str]) -> list[str]:
    names = sorted(names)
    if not names:
        return []
    rest = [f"  and {len(names) - LISTED} more"] if len(names) > LISTED else []
    return [f"{what}: {len(names)}", *(f"  {printable(n)}" for n in names[:LISTED]), *rest]


def guess_sizes(tensors: Mapping[str, TensorInfo]) -> TransformerSizes | None:
    """Sizes that an incomplete transformer seems to have, by what is left of it.

    What no tensor tells is taken from the published model of the same width.
    """

    def width(pattern: str, axis: int) -> int | None:
        lengths = Counter(
            info.shape[axis]
            for name, info in tensors.items()
            if re.fullmatch(pattern, name) and len(info.shape) >= abs(axis)
        )
        return lengths.most_common(1)[0][0] if lengths else None

    dim = width(r"blocks\.\d+\.\w+\.norm_[qk]\.weight", -1) or width(r".*modulation", -1)
    if not dim:
        return None
    known = next((s for s in PUBLISHED if s.dim == dim), None)
    blocks = [int(m[1]) for n in tensors if (m := re.match(r"blocks\.(\d{1,4})\.", n))]
    layers = max(blocks, default=-1) + 1
    patch, head = tensors.get("patch_embedding.weight"), width(r"head\.head\.bias", 0)
    into = channels_of(patch, dim) if patch else None
    out = head // 4 if head else None
    return TransformerSizes(
        dim=dim,
        ffn_dim=width(r"blocks\.\d+\.ffn\.0\.weight", 0)
        or width(r"blocks\.\d+\.ffn\.0\.bias", 0)
        or (known.ffn_dim if known else 0),
        layers=max(layers, known.layers if known else 0),
        in_channels=into or out or (known.in_channels if known else 0),
        out_channels=out or (known.out_channels if known else into or 0),
        text_dim=width(r"text_embedding\.0\.weight", 1) or (known.text_dim if known else 0),
    )


def title_of(header: Header) -> str | None:
    """What a file's metadata calls it, in a few words."""
    words = [
        f"{key} '{printable(str(header.metadata[key]))[:60]}'"
        for key in ("general.architecture", "general.name", "modelspec.title")
        if header.metadata.get(key)
    ]
    return ", ".join(words) or None
