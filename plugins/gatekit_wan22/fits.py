"""Whether text encoder, VAE and model belong to a family and its task, from headers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gatekit import ScheduleError, VariantParams, WeightsError

from .header import read_header
from .latent_statistics import statistics
from .sizes import TransformerSizes
from .sizes_parts import read_vae_sizes
from .sizes_umt5 import read_umt5_sizes
from .tokenizer import check_tokenizer, find_tokenizer, no_tokenizer
from .vae_tiles import Tile, least_tile


def check_text_encoder(file: Path, tokenizer: Path | None) -> None:
    """Raise WeightsError for what is no UMT5 encoder, or has no tokenizer or plainly a bad one."""
    header = read_header(file, role="text_encoder")
    read_umt5_sizes(header)
    place = find_tokenizer(header, tokenizer)
    if place is None:
        raise no_tokenizer(str(header.path))
    check_tokenizer(header, place)


def check_vae(file: Path, tile: Tile, family: str, wanted: tuple[int, int, int]) -> None:
    """Check a VAE.

    Args:
        file: Its file or folder.
        tile: As ``vae.tile``.
        family: Name, for errors.
        wanted: Latent channels, stride in space, stride in time.

    Raises:
        WeightsError: No VAE, or statistics that are none.
        ScheduleError: The VAE of another model, or a tile too small for its border.
    """
    header = read_header(file, role="vae")
    sizes = read_vae_sizes(header)
    statistics(header, sizes.z_dim)
    found = (sizes.z_dim, sizes.spatial_stride, sizes.temporal_stride)
    if found != wanted:
        raise ScheduleError(
            f"this VAE has {found[0]} channels and strides {found[1]} and {found[2]}, the "
            f"family '{family}' needs {wanted[0]}, {wanted[1]} and {wanted[2]}",
            where=str(file),
            remedy=f"give the VAE of Wan {'2.2' if wanted[0] == 48 else '2.1'}",
        )
    least = least_tile(sizes)
    if isinstance(tile, int) and tile < least:
        raise ScheduleError(
            "a tile must hold its border on both sides",
            value=tile,
            remedy=f"'vae.tile' must be at least {least} for this VAE, or auto",
            key=("tile",),
        )


def check_model(
    sizes: TransformerSizes,
    where: str,
    *,
    family: str,
    task: str,
    z_dim: int,
    image_channels: bool,
    text_encoder: Path | None,
) -> None:
    """Check a transformer.

    Args:
        sizes: The model's.
        where: Its file.
        family: Name, for errors.
        task: The task.
        z_dim: Latent channels of the family.
        image_channels: Whether the task gives mask and condition.
        text_encoder: File whose embeddings the model is to take, if known.

    Raises:
        WeightsError: A model of another task, or for embeddings of another width.
    """
    if sizes.out_channels != z_dim:
        raise WeightsError(
            f"the model has {sizes.out_channels} latent channels, the family '{family}' {z_dim}",
            where=where,
            remedy="use a model of this task: 16 channels are A14B's, 48 are TI2V-5B's",
        )
    if bool(sizes.image_channels) != image_channels:
        kind = "an image-to-video" if sizes.image_channels else "a text-to-video"
        raise WeightsError(
            f"{kind} model, but the task is {task}",
            where=where,
            remedy="change family.task, or use the model of that task",
        )
    if text_encoder is None:
        return
    width = read_umt5_sizes(read_header(text_encoder, role="text_encoder")).dim
    if width != sizes.text_dim:
        raise WeightsError(
            f"the model takes embeddings of {sizes.text_dim}, the text encoder "
            f"{text_encoder.name} gives {width}",
            where=where,
            remedy="use the text encoder that belongs to the model",
        )


def swapped_experts(
    phases: Mapping[str, tuple[VariantParams, Sequence[float]]],
) -> tuple[str, ...]:
    """One line where ``expert: low`` serves higher noise than ``expert: high``.

    Args:
        phases: Name -> the variant's parameters in the phase, and its sigmas.
    """
    by_expert: dict[str | None, dict[str, float]] = {}
    for name, (params, sigmas) in phases.items():
        by_expert.setdefault(getattr(params, "expert", None), {})[name] = sigmas[0]
    lows, highs = by_expert.get("low"), by_expert.get("high")
    if not lows or not highs:
        return ()
    low, high = max(lows, key=lows.__getitem__), min(highs, key=highs.__getitem__)
    if lows[low] <= highs[high]:
        return ()
    return (
        f"phase '{low}' with 'expert: low' begins at sigma {lows[low]:.4g}, "
        f"phase '{high}' with 'expert: high' only at {highs[high]:.4g}: are they swapped?",
    )
