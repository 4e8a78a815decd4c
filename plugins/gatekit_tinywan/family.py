"""The family ``tinywan``: Wan 2.2's architecture at a size that ships with gatekit."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from gatekit import FamilyParams, Inputs, ModelVariant, VariantFacts, VideoSpec
from gatekit_wan22 import WanConditioning, WanFamily

WEIGHTS = Path(__file__).parent / "weights"
# What every file of this family has, whatever its depth: width of the model, of its feed-forward
# layers and of the embeddings, image and mask beside the latent, channels of the VAE's first layer.
WIDTH, FFN_WIDTH, TEXT_WIDTH, IMAGE_CHANNELS, VAE_BASE = 256, 1024, 128, 20, 32
LISTED = 8  # unknown words that a warning names
log = logging.getLogger("gatekit.tinywan")


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

    @classmethod
    def takes_model(cls, variant: ModelVariant) -> bool:
        """A model of these sizes; that it was trained on this world, no header tells."""
        sizes = getattr(variant, "sizes", None)
        return (
            sizes is not None
            and sizes.text_dim == TEXT_WIDTH
            and sizes.image_channels == IMAGE_CHANNELS
        )

    @classmethod
    def component_facts(cls, file: Path) -> Mapping[str, VariantFacts]:
        """As ``wan22``, of these sizes."""
        from gatekit_wan22.header import read_header
        from gatekit_wan22.lora.facts import meant_by
        from gatekit_wan22.sizes_parts import read_vae_sizes
        from gatekit_wan22.sizes_umt5 import read_umt5_sizes

        found = dict(super().component_facts(file))
        if "lora" in found:
            model = meant_by(file)
            if model.dim != WIDTH or model.ffn_dim not in (0, FFN_WIDTH):
                del found["lora"]
        if "text_encoder" in found:
            sizes = read_umt5_sizes(read_header(file, role="text_encoder"))
            if sizes.dim != TEXT_WIDTH:
                del found["text_encoder"]
        if "vae" in found and read_vae_sizes(read_header(file, role="vae")).base_dim != VAE_BASE:
            del found["vae"]
        return found

    def encode(
        self, inputs: Inputs, video: VideoSpec, device: str
    ) -> Mapping[str, WanConditioning]:
        """As ``wan22``; a warning names the words that the model was never shown."""
        from .vocabulary import unknown_words

        unknown = unknown_words(f"{inputs.prompt} {inputs.negative_prompt or ''}")
        if unknown:
            more = f" and {len(unknown) - LISTED} more" if len(unknown) > LISTED else ""
            log.warning(
                "words that the small model does not know: %s%s; those it knows: "
                "python -m gatekit_tinywan.vocabulary",
                ", ".join(unknown[:LISTED]),
                more,
            )
        return super().encode(inputs, video, device)
