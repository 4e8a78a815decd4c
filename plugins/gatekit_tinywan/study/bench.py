"""Plans of the bases, with weights, embeddings and autoencoder opened once for all cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gatekit
from gatekit_tinywan.batch import Batch, Pool, Prompts, embed, family_of
from gatekit_tinywan.study.cell import BASES, PHASES, Cell, digest
from gatekit_tinywan.study.prompts import Split, scenes_of, seeds_of

if TYPE_CHECKING:
    from torch import Tensor

    from gatekit_tinywan.world import Verdict
    from gatekit_wan22.vae import WanVAE


class Bench:
    """Where cells run.

    Args:
        device: ``cpu``, ``cuda``.
        compute: What the arithmetic of the experts runs in.
        models_dir: Folder of weight files, besides the usual ones.
        overrides: Keys of every schedule, as for ``load_schedule``.
    """

    def __init__(
        self,
        device: str,
        compute: str = "fp32",
        models_dir: Path | None = None,
        overrides: Sequence[str] = (),
    ) -> None:
        self.device, self.compute = device, compute
        self.overrides, self._models = tuple(overrides), models_dir
        self._pool = Pool()
        self._prompts: dict[tuple[str, int], Prompts] = {}

    def plan(self, base: str, changes: Mapping[str, Any], files: bool = True) -> gatekit.Plan:
        """The base with its changes, resolved; variants are shared between plans."""
        given = [*self.overrides, *(f"phases.{p}.compute={self.compute}" for p in PHASES[base])]
        texts = [*given, *(f"{key}={_yaml(value)}" for key, value in changes.items())]
        schedule = gatekit.load_schedule(BASES / f"{base}.yaml", texts)
        plan = gatekit.resolve(
            schedule, models_dir=self._models, device=self.device, require_files=files
        )
        return self._pool.share(plan)

    def fitted(self, cell: Cell, files: bool = True) -> gatekit.Plan:
        """The plan of a cell, with the most steps that stay within its evaluations."""
        for steps in range(cell.evaluations, 0, -1):
            plan = self.plan(cell.base, {**cell.changes, "sigmas.steps": steps}, files)
            if plan.nfe <= cell.evaluations:
                return plan
        raise gatekit.InputError(
            "not one step is within the evaluations",
            where=cell.name,
            value=cell.evaluations,
            remedy="give more evaluations",
        )

    def prompts(self, split: Split, rows: Sequence[int]) -> Prompts:
        """Embedded captions of these rows with their seeds; each is embedded once."""
        import torch

        lacking = [row for row in rows if (split, row) not in self._prompts]
        if lacking:
            captions = scenes_of(split, lacking).captions()
            made = embed(self._any, captions, seeds_of(split, lacking), self.device)
            self._prompts |= {(split, row): made[[i]] for i, row in enumerate(lacking)}
        found = [self._prompts[split, row] for row in rows]
        return Prompts(
            torch.cat([p.text for p in found]),
            found[0].negative,
            tuple(seed for p in found for seed in p.seeds),
        )

    def batch(self, plan: gatekit.Plan, split: Split, rows: Sequence[int]) -> Batch:
        """These rows' videos of a plan, its weights loaded."""
        for phase in plan.phases:
            plan.variants[phase.variant].load(self.device, phase.compute)
        return Batch(plan, self.prompts(split, rows), self.device)

    def judged(self, latents: Tensor, split: Split, rows: Sequence[int]) -> list[str]:
        """The judge's verdicts on the decoded latents, a text of 0 and 1 a sample."""
        import torch

        from gatekit_tinywan.world import judge

        parts = [self.vae.decode(z.to(self.device)) for z in latents.split(16)]
        video = torch.cat(parts) / 2 + 0.5
        return _texts(judge(video, scenes_of(split, rows).to(self.device)))

    @cached_property
    def vae(self) -> WanVAE:
        """The autoencoder."""
        return family_of(self._any).open_vae(self.device)

    @cached_property
    def _any(self) -> gatekit.Plan:
        return self.plan("fp16", {})

    def about(self, split: Split) -> dict[str, Any]:
        """What decides the values: weights, prompts, device, arithmetic, keys given."""
        import torch

        plans = [self.plan(base, {}) for base in ("fp16", "gate")]
        found = sorted({f for plan in plans for f in plan.files()})
        weights = {f.name: gatekit.file_identity(f)[2] for f in found}
        name = torch.cuda.get_device_name(self.device) if self.device.startswith("cuda") else "CPU"
        tf32 = name != "CPU" and torch.backends.cuda.matmul.allow_tf32
        return {
            "weights": digest(weights),
            "files": weights,
            "split": split,
            "device": name,
            "compute": self.compute + (" with TF32 products" if tf32 else ""),
            "set": list(self.overrides),
            "torch": torch.__version__,
            "gatekit": gatekit.__version__,
        }


def _texts(verdict: Verdict) -> list[str]:
    import dataclasses

    import torch

    columns = [getattr(verdict, f.name) for f in dataclasses.fields(verdict)]
    table = torch.cat([c.reshape(len(c), -1) for c in columns], dim=1).int().tolist()
    return ["".join(map(str, row)) for row in table]


def _yaml(value: Any) -> str:
    """JSON is YAML."""
    import json

    return json.dumps(value)
