"""A batch of videos from one plan: embedded once, started from noise, sampled together.

Every sample is what it would be alone, so long as nothing in the plan decides for a batch as a
whole (``auto`` history, ``settle``, adaptive samplers and the cache ``first_block`` do).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import gatekit
from gatekit_wan22 import WanConditioning, WanFamily

if TYPE_CHECKING:
    from torch import Tensor

Denoise = Callable[["Tensor", float], "Tensor"]
# After each interval: (state, record, denoised).
Observer = Callable[[gatekit.State, gatekit.Record, "Tensor"], None]


def family_of(plan: gatekit.Plan) -> WanFamily:
    """The plan's family.

    Raises:
        InputError: It is not ``tinywan`` or another of Wan's architecture.
    """
    if not isinstance(plan.family, WanFamily):
        raise gatekit.InputError(
            "only schedules of the family tinywan can be judged",
            where=plan.schedule.name,
            value=plan.family.name,
            remedy="write 'family: {use: tinywan}'",
        )
    return plan.family


@dataclass(frozen=True)
class Prompts:
    """Embedded captions with a seed each.

    Attributes:
        text: ``[n, L, d]``.
        negative: The empty (or the family's negative) prompt, ``[1, L, d]``.
        seeds: One a caption.
    """

    text: Tensor
    negative: Tensor
    seeds: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, rows: Sequence[int]) -> Prompts:
        """The chosen ones, as another batch."""
        return Prompts(self.text[list(rows)], self.negative, tuple(self.seeds[i] for i in rows))


def embed(
    plan: gatekit.Plan, captions: Sequence[str], seeds: Sequence[int], device: str
) -> Prompts:
    """Captions through the plan's text encoder."""
    family = family_of(plan)
    encoder = family.open_text_encoder(device)
    text = encoder.embed(list(captions)).to(device)
    negative = encoder.embed([family.negative_prompt]).to(device)
    return Prompts(text, negative, tuple(seeds))


class Pool:
    """Variants by what they are, so that many plans share the weights that one of them loaded."""

    def __init__(self) -> None:
        self._held: dict[str, gatekit.ModelVariant] = {}

    def share(self, plan: gatekit.Plan) -> gatekit.Plan:
        """The plan, with variants that other plans brought where they are the same."""
        return replace(
            plan,
            variants={
                key: self._held.setdefault(_identity(variant), variant)
                for key, variant in plan.variants.items()
            },
        )


def _identity(variant: gatekit.ModelVariant) -> str:
    return f"{type(variant).__qualname__} {variant.params.model_dump_json()}"


class Batch:
    """n videos of one plan: their start, and what predicts in each phase.

    Attributes:
        plan: A resolved schedule of the family ``tinywan``.
        prompts: Captions and seeds.
        device: Where to compute.
        nfe: Evaluations made so far; guidance's passes are ``passes``, those that a step cache
            shortened ``skipped``.
    """

    def __init__(self, plan: gatekit.Plan, prompts: Prompts, device: str) -> None:
        self.plan, self.prompts, self.device = plan, prompts, device
        self.nfe = self.passes = self.skipped = 0
        zeros = family_of(plan).encode_image(None, plan.video, device)
        n = len(prompts)
        self._conditionings = {
            "positive": WanConditioning(text=prompts.text, image=zeros),
            "negative": WanConditioning(text=prompts.negative.expand(n, -1, -1), image=zeros),
        }
        self._memory: dict[str, Any] = {}  # of the guidance, by the field that made it

    def start(self) -> Tensor:
        """Noise ``[n, C, T, H, W]``, as ``gatekit.run`` makes it for each seed."""
        shape = (len(self.prompts), *family_of(self.plan).latent_shape(self.plan.video))
        noise = gatekit.NoiseSource(list(self.prompts.seeds))
        return noise.normal(shape, step=0, purpose="start").to(self.device)

    def denoiser(self, phase: gatekit.PlannedPhase) -> Denoise:
        """D(x, sigma) of a phase, guided; the last field's memory of the guidance alone is kept."""
        variant = self.plan.variants[phase.variant]
        guided = gatekit.Guided(variant, phase.guidance, self._conditionings, phase.cache)

        def denoise(x: Tensor, sigma: float) -> Tensor:
            variant.adjust(phase.params)
            variant.configure(phase.execution)
            variant.load(self.device, phase.compute)
            self.nfe += 1
            earlier = self._memory.pop(phase.field, {})
            self._memory.clear()
            before, short = guided.passes, guided.skipped
            velocity, after = guided.velocity(x, sigma, earlier)
            self.passes += guided.passes - before
            self.skipped += guided.skipped - short
            self._memory[phase.field] = after
            return x - sigma * velocity

        return denoise

    def sample(self, x: Tensor | None = None, observers: Sequence[Observer] = ()) -> Tensor:
        """Final latents ``[n, C, T, H, W]``; from ``start`` if no ``x`` is given."""
        return gatekit.sample_phases(
            [
                gatekit.FunctionPhase(
                    self.denoiser(phase),
                    sampler=phase.sampler,
                    sigmas=phase.sigmas,
                    field=phase.field,
                    history=phase.history,
                    strategy=type(phase.strategy),
                    strategy_params=phase.strategy.params.model_dump(),
                    name=phase.name,
                )
                for phase in self.plan.phases
            ],
            self.start() if x is None else x,
            seed=list(self.prompts.seeds),
            path="flow",
            observers=observers,
        )
