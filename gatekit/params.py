"""The base of every plugin's parameters: frozen pydantic models that forbid unknown keys."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Params(BaseModel):
    """Frozen, strict about keys; a subclass lists its options as typed fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SamplerParams(Params):
    """Parameters of a sampler: ``phases[].sampler``."""


class PhaseParams(Params):
    """Parameters of a phase strategy: ``phases[].strategy``."""


class VariantParams(Params):
    """Parameters of a model variant: ``variants.*``."""


class AdjustParams(Params):
    """What a phase may change in its variant: ``phases[].adjust``. No keys: nothing."""


class FamilyParams(Params):
    """Parameters of a model family: ``family``."""


class GuidanceParams(Params):
    """Parameters of a guidance: ``phases[].guidance``."""


class CacheParams(Params):
    """Parameters of a step cache: ``phases[].cache``."""


class GridParams(Params):
    """Parameters of a sigma grid: ``sigmas``."""


class HistoryParams(Params):
    """Parameters of a history policy: ``phases[].history``."""
