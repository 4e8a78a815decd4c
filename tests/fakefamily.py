"""A family whose model is one number in a file: everything but the weights is real."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from gatekit import (
    AdjustParams,
    Conditioning,
    FamilyParams,
    InputError,
    ModelFamily,
    ModelVariant,
    ScheduleError,
    VariantFacts,
    VariantParams,
    WeightsError,
    hookimpl,
)

LOG: list[str] = []


@dataclass(frozen=True)
class Prompt(Conditioning):
    value: float


class FakeParams(FamilyParams):
    task: Literal["t2v", "i2v"] = "t2v"


class FakeFamily(ModelFamily):
    name: ClassVar[str] = "fake"
    Params = FakeParams
    takes_video = True

    def default_video(self) -> Mapping[str, float]:
        return {"fps": 16}

    def check_video(self, video):
        if video.width % 16 or video.height % 16:
            raise ScheduleError("width and height must be multiples of 16", remedy="use 32")

    def check_inputs(self, inputs):
        if inputs.image is not None and not Path(inputs.image).is_file():
            raise InputError("no such image", value=str(inputs.image), remedy="check -i")

    def latent_shape(self, video):
        return 2, (video.frames - 1) // 4 + 1, video.height // 8, video.width // 8

    def encode(self, inputs, video, device):
        LOG.append("encode")
        negative = inputs.negative_prompt or ""
        return {"positive": Prompt(len(inputs.prompt) / 50), "negative": Prompt(len(negative) / 50)}

    def encode_video(self, frames, video, device):
        import torch

        LOG.append("encode video")
        latent = torch.logit(torch.stack([*frames])[::4, ::8, ::8].mean(-1).clamp(1e-4, 1 - 1e-4))
        return latent[None, None].repeat(1, 2, 1, 1, 1)

    def decode(self, latent, video, device):
        import torch

        LOG.append("decode")
        flat = torch.sigmoid(latent.mean(0))[None, None]
        size = (video.frames, video.height, video.width)
        return torch.nn.functional.interpolate(flat, size=size)[0, 0, ..., None].repeat(1, 1, 1, 3)


class DerivedFamily(FakeFamily):
    """Uses the variants of the family it derives from."""

    name: ClassVar[str] = "derived"


class NumberParams(VariantParams):
    file: Path
    expert: Literal["high", "low"] | None = None
    loras: list[dict[str, Any]] = Field(default_factory=list)
    gain: float = 1.0


class NumberAdjust(AdjustParams):
    gain: float = Field(1.0, ge=0)


class Number(ModelVariant):
    """D = gain x + prompt, with the gain read from the file."""

    name: ClassVar[str] = "number"
    family: ClassVar[str] = "fake"
    Params = NumberParams
    file_fields: ClassVar[tuple[str, ...]] = ("file", "loras.file")
    Adjust = NumberAdjust
    in_blocks: ClassVar[bool] = True

    def __init__(self, params):
        super().__init__(params)
        self._loaded, self._gain, self._now = None, 0.0, params

    def adjusted(self, adjust):
        if adjust.gain > 9:
            raise ScheduleError("gain above 9", value=adjust.gain, remedy="use less")
        return self.params.model_copy(update={"gain": adjust.gain})

    def adjust(self, params):
        if params != self._now:
            LOG.append(f"adjust {self.params.file.stem} {params.gain:g}")
        self._now = params

    def _read(self):
        try:
            return json.loads(self.params.file.read_text())
        except ValueError as exc:
            raise WeightsError("no number in it", where=str(self.params.file)) from exc

    def facts(self):
        content = self._read()
        size = self.params.file.stat().st_size
        weights, bits = content.get("weights", 1), content.get("bits", 64.0)
        return VariantFacts("fp64", size, weights, bits, content.get("resident", 8), {"F64": 1})

    def files(self):
        return (self.params.file, *(Path(lora["file"]) for lora in self.params.loras))

    def load(self, device, compute):
        LOG.append(f"load {self.params.file.stem}")
        self._gain = self._read()["gain"]
        self._loaded = (device, compute)

    def unload(self):
        if self._loaded is not None:
            LOG.append(f"unload {self.params.file.stem}")
        self._loaded = None

    @property
    def loaded(self):
        return self._loaded

    def velocity(self, x, sigma, conditioning):
        def body(blocks, hidden):
            for block in blocks:
                hidden = block(hidden)
            return hidden

        return self.through(x, sigma, conditioning, body)

    def through(self, x, sigma, conditioning, body):
        assert self._loaded is not None
        gain = self._now.gain * self._gain
        blocks = (lambda h: h - gain * h.tanh(), lambda h: h - conditioning.value)
        return body(blocks, x) / max(sigma, 1e-3)


@hookimpl
def gatekit_register_families():
    return [FakeFamily, DerivedFamily]


@hookimpl
def gatekit_register_variants():
    return [Number]
