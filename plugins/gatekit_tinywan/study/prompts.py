"""Which captions and which noise: one list to tune on, another to report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from gatekit_tinywan.world import HELD_OUT_SEED, SceneBatch, sample_scenes

if TYPE_CHECKING:
    from collections.abc import Sequence

Split = Literal["tune", "report"]
TUNE_SEED = 20_260_303
TUNE_NOISE = 1_000_000  # first seed of the noise of ``tune``; that of ``report`` begins at 0


def scenes_of(split: Split, rows: Sequence[int]) -> SceneBatch:
    """The scenes of these rows.

    ``report`` has the combinations of attributes that the model was never trained on, in the order
    and with the noise of ``python -m gatekit_tinywan.evaluate``. ``tune`` has others, by
    construction: no caption is in both.
    """
    if split == "report":
        return sample_scenes(HELD_OUT_SEED, rows, split="held_out")
    return sample_scenes(TUNE_SEED, rows, split="train")


def seeds_of(split: Split, rows: Sequence[int]) -> list[int]:
    """Seeds of the noise of these rows."""
    return [row if split == "report" else TUNE_NOISE + row for row in rows]
