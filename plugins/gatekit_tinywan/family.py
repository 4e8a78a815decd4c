"""The family ``tinywan``: Wan 2.2's architecture at a size that ships with gatekit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from gatekit import FamilyParams
from gatekit_wan22 import WanFamily

WEIGHTS = Path(__file__).parent / "weights"


class TinyWanParams(FamilyParams):
    """No keys besides ``use``: one model does text to video and, with an image, image to video."""


class TinyWanFamily(WanFamily):
    """Two moving shapes at 96 x 96; the world that it knows is ``gatekit_tinywan.world``.

    The weights lie in this package, so schedules name them without a path. An image is
    optional: without one, mask and condition are zeros, as in half of the training.
    """

    name: ClassVar[str] = "tinywan"
    Params: ClassVar[type[FamilyParams]] = TinyWanParams
    negative_prompt: str = ""
    video: Mapping[str, float] = {"width": 96, "height": 96, "frames": 25, "fps": 16}

    @classmethod
    def model_dirs(cls) -> tuple[Path, ...]:
        """The folder of the shipped weights."""
        return (WEIGHTS,)

    @property
    def image_use(self) -> Literal["never", "required", "optional"]:
        """One model takes both."""
        return "optional"
