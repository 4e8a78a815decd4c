"""Warm: what several runs in one process share instead of making it anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from gatekit.provenance import Hashes, inputs_record

if TYPE_CHECKING:
    from gatekit.family import Inputs
    from gatekit.plan import Plan
    from gatekit.variant import Conditioning, ModelVariant


class Warm:
    """Weights stay loaded, prompts stay encoded, hashes stay known from one run to the next.

    Give the same one to each ``run``. A variant counts as the same where its class, its parameters
    and those of its phases are: results are those of separate runs, bit for bit. What leaves when
    memory is short is decided as within one run. Files must not change meanwhile.

    Args:
        prompts: How many encoded inputs are kept; the one used longest ago goes first.

    Attributes:
        loaded: Variants that are loaded, with their expected bytes, the one used last at the end.
    """

    keeps = True

    def __init__(self, prompts: int = 32) -> None:
        self.loaded: dict[ModelVariant, int] = {}
        self._prompts = prompts
        self._variants: dict[str, ModelVariant] = {}
        self._encoded: dict[str, Mapping[str, Conditioning]] = {}
        self._hashes: dict[Any, Hashes] = {}

    def adopt(self, plan: Plan) -> Plan:
        """The plan, with the variants of earlier plans where they are the same."""
        variants = {
            key: self._variants.setdefault(_same_variant(variant), variant)
            for key, variant in plan.variants.items()
        }
        return replace(plan, variants=variants)

    def encode(self, plan: Plan, inputs: Inputs) -> Mapping[str, Conditioning]:
        """The conditionings of the inputs."""
        key = _same_prompt(plan, inputs)
        found = self._encoded.pop(key, None)
        if found is None:
            found = plan.family.encode(inputs, plan.video, plan.device)
        self._encoded[key] = found
        while len(self._encoded) > self._prompts:
            del self._encoded[next(iter(self._encoded))]
        return found

    def hashes(self, plan: Plan) -> Hashes:
        """SHA-256 of the plan's files, computed once."""
        files = plan.files()
        if files not in self._hashes:
            self._hashes[files] = Hashes(files)
        return self._hashes[files]

    def settle(self) -> None:
        """A run has ended: what it loaded stays."""

    def close(self) -> None:
        """Unload everything and forget the prompts."""
        for variant in self.loaded:
            variant.unload()
        self.loaded.clear()
        self._encoded.clear()


class Cold(Warm):
    """Keeps nothing beyond its run."""

    keeps = False

    def adopt(self, plan: Plan) -> Plan:
        """The plan itself."""
        return plan

    def encode(self, plan: Plan, inputs: Inputs) -> Mapping[str, Conditioning]:
        """Encoded, and not kept."""
        return plan.family.encode(inputs, plan.video, plan.device)

    def settle(self) -> None:
        """Unload everything."""
        self.close()


def _same_variant(variant: ModelVariant) -> str:
    cls = type(variant)
    parameters = [p.model_dump(mode="json") for p in (variant.params, *variant.phases)]
    return json.dumps([cls.__module__, cls.__qualname__, parameters], sort_keys=True)


def _same_prompt(plan: Plan, inputs: Inputs) -> str:
    family, record = plan.family, inputs_record(inputs)
    record.pop("seed")
    content = [
        *(type(family).__module__, type(family).__qualname__),
        family.params.model_dump(mode="json"),
        {name: asdict(part) for name, part in family.components.given().items()},
        *(asdict(plan.video), plan.device, record),
    ]
    return json.dumps(content, sort_keys=True, default=str)
