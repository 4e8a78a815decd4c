"""One LoRA file, from its header alone: what it changes in which module."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from gatekit import WeightsError

from ..header import Header, TensorInfo, read_header
from ..sizes import check_types, few
from .names import FIRST, SECOND, kind_of, official_module, split

# Of a float whose bits of these are all 1, the value is NaN or infinity.
_EXPONENT = {
    "F64": 0x7FF << 52, "F32": 0xFF << 23, "F16": 0x1F << 10, "BF16": 0xFF << 7,
    "F8_E5M2": 0x1F << 2, "F8_E4M3": 0x7F,
}  # fmt: skip
MERGE_IT = "merge it into the model with the tool that made it, or give a plain LoRA"


@dataclass(frozen=True)
class Change:
    """What a file says about one module, W being its weight ``[out, in]`` and b its bias.

    Attributes:
        module: Official name, without ``.weight``; a modulation counts as a module.
        down, up: ``[rank, in]`` and ``[out, rank]``: W + strength * alpha / rank * up down.
        alpha: One number of any type; where it is missing, alpha is the file's, or the rank.
        up_bias: ``[out]``: b + strength * alpha / rank * up_bias, as PEFT has it.
        diff, diff_b: W + strength * diff, b + strength * diff_b.
    """

    module: str
    down: TensorInfo | None = None
    up: TensorInfo | None = None
    alpha: TensorInfo | None = None
    up_bias: TensorInfo | None = None
    diff: TensorInfo | None = None
    diff_b: TensorInfo | None = None

    @property
    def rank(self) -> int:
        """Rank of the pair; 0 where there is none."""
        return self.down.shape[0] if self.down is not None and self.down.shape else 0


@dataclass(frozen=True)
class LoraFile:
    """A file of low-rank changes and differences, checked as far as it goes alone.

    Attributes:
        header: Its header.
        changes: By the module's official name.
        unmatched: Keys that name no module of a Wan transformer.
    """

    header: Header
    changes: dict[str, Change] = field(default_factory=dict[str, Change])
    unmatched: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The file."""
        return self.header.path

    @property
    def ranks(self) -> dict[int, int]:
        """Rank -> number of modules, most frequent first."""
        return dict(Counter(c.rank for c in self.changes.values() if c.rank).most_common())

    def __str__(self) -> str:
        pairs = sum(self.ranks.values())
        ranks = ", ".join(map(str, sorted(self.ranks)))
        parts = [f"rank {ranks} on {pairs} layers"] if pairs else []
        parts += [
            f"{count} {what}"
            for what, count in (
                ("weight differences", sum(c.diff is not None for c in self.changes.values())),
                ("bias differences", sum(c.diff_b is not None for c in self.changes.values())),
            )
            if count
        ]
        return ", ".join(parts)


def read_lora(path: str | Path, expert: str | None = None) -> LoraFile:
    """Read a LoRA's header.

    Args:
        path: The file.
        expert: Whose part is meant, where one file has parts for two models, as diffusers
            writes them: ``transformer`` (high noise) and ``transformer_2`` (low noise).

    Raises:
        WeightsError: No LoRA, one of another kind, or one that is incomplete.
    """
    header = read_header(path)
    keys = _part(header, expert)
    found: dict[str, Change] = {}
    unmatched: list[str] = []
    for key in keys:
        if kind := kind_of(key):
            raise WeightsError(
                f"a {kind} adapter ('{key}'), which is not evaluated here",
                where=str(header.path),
                remedy=MERGE_IT,
            )
        parts = split(key)
        module = official_module(parts[0]) if parts else None
        if parts is None or module is None:
            unmatched.append(key)
            continue
        role = parts[1]
        change = found.setdefault(module, Change(module))
        if getattr(change, role) is not None:
            raise WeightsError(
                f"two entries for the {role} of '{module}'",
                where=str(header.path),
                remedy="the file mixes layouts; get it from its author again",
            )
        found[module] = replace(change, **{role: header.tensors[key]})
    if not any(split(key) for key in keys):
        raise _no_lora(header)
    _check_pairs(header, found)
    check_types(header, {k: header.tensors[k] for k in keys if not k.endswith(".alpha")})
    _check_alphas(header, found)
    return LoraFile(header, found, tuple(unmatched))


def _check_alphas(header: Header, changes: dict[str, Change]) -> None:
    """Raise WeightsError for an alpha of NaN or infinity; torch is not needed to tell."""
    with header.path.open("rb") as stream:
        for change in changes.values():
            exponent = _EXPONENT.get(change.alpha.type) if change.alpha is not None else None
            if change.alpha is None or exponent is None:
                continue
            stream.seek(change.alpha.offset)
            bits = int.from_bytes(stream.read(change.alpha.nbytes), "little")
            if bits & exponent == exponent:
                raise WeightsError(
                    f"'{change.alpha.name}' is NaN or infinite",
                    where=str(header.path),
                    remedy="the file is damaged; get it from its author again",
                )


def _part(header: Header, expert: str | None) -> list[str]:
    """Keys of the part that is meant, where a file has parts for two models."""
    if not has_both(header):
        return list(header.tensors)
    if expert is None:
        raise WeightsError(
            "LoRAs for two models in one file",
            where=str(header.path),
            remedy="say 'expert: high' or 'expert: low' in the variant",
        )
    prefix = SECOND if expert == "low" else FIRST
    return [key for key in header.tensors if key.startswith(prefix)]


def has_both(header: Header) -> bool:
    """Whether a file has LoRAs for two models."""
    return all(any(k.startswith(p) for k in header.tensors) for p in (FIRST, SECOND))


def _no_lora(header: Header) -> WeightsError:
    names = list(header.tensors)
    seems = "a whole model" if len(names) > 400 else "something else"
    return WeightsError(
        f"no LoRA but {seems}: {len(names)} tensors, such as {few(names)[:200] or 'none'}",
        where=str(header.path),
        remedy="give a LoRA of Wan 2.1 or 2.2 as .safetensors",
    )


def _check_pairs(header: Header, changes: dict[str, Change]) -> None:
    """Raise WeightsError for half a pair, or a pair without rank."""
    where = str(header.path)
    halves = [
        c.module
        for c in changes.values()
        if (c.down is None) != (c.up is None)
        or (c.down is None and (c.up_bias is not None or (c.alpha and not (c.diff or c.diff_b))))
    ]
    if halves:
        raise WeightsError(
            f"{len(halves)} layers have only a part of down, up and alpha: {few(halves)}",
            where=where,
            remedy="the file is incomplete; download or copy it again",
        )
    for change in changes.values():
        down, up = change.down, change.up
        if down is None or up is None:
            continue
        ranks = (down.shape[:1], up.shape[1:2])
        if len(down.shape) < 2 or len(up.shape) < 2 or ranks[0] != ranks[1] or ranks[0] == (0,):
            raise WeightsError(
                f"'{change.module}': down {list(down.shape)[:8]} and up {list(up.shape)[:8]} "
                "have no rank in common",
                where=where,
                remedy="down is [rank, in] and up [out, rank], with a rank of 1 or more",
            )
        if change.alpha is not None and change.alpha.count != 1:
            raise WeightsError(
                f"alpha of '{change.module}' is {list(change.alpha.shape)[:8]}, not one number",
                where=where,
                remedy="the file is damaged, or of a kind that is not known",
            )
