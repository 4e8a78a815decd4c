"""The family ``synthetic``: Wan's models of any size, conditioned on noise instead of a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from gatekit import FamilyParams, Inputs, ModelVariant, VariantFacts, VideoSpec
from gatekit_wan22 import WanConditioning, WanFamily


class SyntheticParams(FamilyParams):
    """Keys of ``family`` besides ``use``."""

    channels: int = Field(16, ge=1, description="channels of the latent")
    image_channels: int = Field(0, ge=0, description="channels of mask and condition")
    text_dim: int = Field(4096, ge=1, description="width of the text's embeddings")


class SyntheticFamily(WanFamily):
    """For ``gatekit bench``: needs no text encoder and no VAE, and makes no video to look at."""

    name: ClassVar[str] = "synthetic"
    Params: ClassVar[type[FamilyParams]] = SyntheticParams
    required: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def takes_model(cls, variant: ModelVariant) -> bool:
        """Nothing is shown as this family's."""
        return False

    @classmethod
    def component_facts(cls, file: Any) -> Mapping[str, VariantFacts]:
        """It has no components."""
        return {}

    def check_variant(self, variant: ModelVariant, compute: str) -> None:
        """Any Wan model, in a precision that there is."""
        from gatekit_wan22.precision import check_compute

        check_compute(compute)

    def latent_shape(self, video: VideoSpec) -> tuple[int, int, int, int]:
        """With as many channels as asked for, at the strides of VAE 2.1."""
        _, frames, height, width = super().latent_shape(video)
        return self._asked.channels, frames, height, width

    def encode(
        self, inputs: Inputs, video: VideoSpec, device: str
    ) -> Mapping[str, WanConditioning]:
        """Random embeddings of 512 tokens; mask and condition are zeros."""
        import torch

        from gatekit_bench.sizes import TEXT

        generator = torch.Generator().manual_seed(inputs.seed)
        size, image = (1, TEXT, self._asked.text_dim), None
        if self._asked.image_channels:
            _, *rest = self.latent_shape(video)
            image = torch.zeros(1, self._asked.image_channels, *rest, device=device)
        return {
            name: WanConditioning(torch.randn(size, generator=generator).to(device), image)
            for name in ("positive", "negative")
        }

    @property
    def _asked(self) -> SyntheticParams:
        assert isinstance(self.params, SyntheticParams)
        return self.params
