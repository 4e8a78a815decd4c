"""The denoising of a run: inputs encoded, the first state, then every stage to the latent."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gatekit.clip import clip_frames
from gatekit.leases import leased, mapped
from gatekit.modelstage import model_stage
from gatekit.path import as_path
from gatekit.provenance import tensors_hash
from gatekit.registry import registry
from gatekit.residency import Residency

if TYPE_CHECKING:
    from torch import Tensor

    from gatekit.family import Inputs
    from gatekit.ledger import Observer
    from gatekit.path import Path as NoisePath
    from gatekit.plan import Plan
    from gatekit.progress import Timed
    from gatekit.runfolder import RunFolder
    from gatekit.state import State, Trajectory
    from gatekit.unchanged import Unchanged
    from gatekit.warm import Warm


@dataclass
class Denoising:
    """One run's way from noise, or from a checkpoint, to its last state.

    Attributes:
        plan: The plan.
        inputs: What is conditioned on.
        folder: Keeps checkpoints, where there is one.
        warm: Keeps weights and encoded prompts.
        unchanged: Looks at files before they are touched.
        timed: Announces parts and takes their time.
    """

    plan: Plan
    inputs: Inputs
    folder: RunFolder | None
    warm: Warm
    unchanged: Unchanged
    timed: Timed

    def run(self, observers: Sequence[Observer], state: State | None) -> Trajectory:
        """Every step from ``state`` on, or from the beginning; nothing of it stays behind."""
        residency = Residency(self.plan, self.warm.loaded)
        try:
            residency.start(state.phase if state is not None else 0)
            trajectory = self._sample(residency, observers, state)
            residency.leave_room("vae")
            return trajectory
        finally:
            residency.close()
            self.warm.settle()
            self.timed.seconds |= {f"loading {k}": s for k, s in residency.seconds.items()}

    def _sample(
        self, residency: Residency, observers: Sequence[Observer], state: State | None
    ) -> Trajectory:
        from gatekit.noise import NoiseSource
        from gatekit.runner import run_stages

        plan, noise = self.plan, NoiseSource(self.inputs.seed)
        conditionings: Mapping[str, Any]
        with leased(mapped(plan, "text_encoder")):
            conditionings = self.timed("encoding", lambda: self.warm.encode(plan, self.inputs))
        path = as_path(plan.family.path)
        x = noise.normal((1, *plan.family.latent_shape(plan.video)), step=0, purpose="start")
        x = self._started(x, path) if state is None else x
        if self.folder is not None:
            self.folder.encoded(tensors_hash(conditionings))
        stages = [
            model_stage(plan, phase, conditionings, residency, self.unchanged, self.timed.progress)
            for phase in plan.phases
        ]
        folder = self.folder
        began = time.perf_counter()
        try:
            trajectory = run_stages(
                stages,
                x.to(plan.device),
                noise=noise,
                path=path,
                run_sigmas=plan.run_sigmas,
                resume_from=state,
                observers=[lambda _, record, __: self.timed.progress.step(record), *observers],
                checkpoint=folder.checkpoint if folder is not None else None,
                hooks=registry().manager.hook,
                plan=plan,
            )
            last = trajectory.state
            known = conditionings[plan.phases[-1].guidance.needs[0]].with_known
            return replace(trajectory, state=replace(last, x=known(last.x)))
        finally:
            self.timed.seconds["steps"] = time.perf_counter() - began

    def _started(self, noise: Tensor, path: NoisePath) -> Tensor:
        """The first state: alpha x0 + sigma n with a video, else noise at the path's level."""
        plan = self.plan
        sigma = plan.run_sigmas[0]
        if plan.start is None:
            # Plain noise on a flow, also where it starts a little below 1: Wan's code does so.
            return noise * sigma if math.isinf(path.sigma_max) else noise
        frames = clip_frames(self.inputs.video, plan.video)
        encode = plan.family.encode_video
        x0: Tensor
        with leased(mapped(plan, "vae")):
            x0 = self.timed("encoding the video", lambda: encode(frames, plan.video, plan.device))
        return path.alpha(sigma) * x0.float() + sigma * noise.to(x0.device)
