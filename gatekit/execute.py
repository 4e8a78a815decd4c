"""Running a plan: inputs -> conditioning -> stages -> latent -> video."""

from __future__ import annotations

import contextlib
import math
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gatekit.clip import check_clip, clip_frames
from gatekit.determinism import deterministic
from gatekit.device import check_device
from gatekit.errors import GatekitError, InputError, OutputError, PluginError
from gatekit.guided import Guided
from gatekit.latent import decode_latent
from gatekit.lookup import missing_error
from gatekit.path import as_path
from gatekit.provenance import peak_memory, tensors_hash
from gatekit.registry import registry
from gatekit.residency import TILE, Residency, decoded
from gatekit.result import Result
from gatekit.runfolder import RunFolder, open_run_folder
from gatekit.target import Target
from gatekit.unchanged import Unchanged
from gatekit.warm import Cold, Warm

if TYPE_CHECKING:
    from torch import Tensor

    from gatekit.family import Inputs
    from gatekit.path import Path as NoisePath
    from gatekit.plan import Plan, PlannedPhase
    from gatekit.stage import Evaluate, Memory, Stage
    from gatekit.state import Record, State, Trajectory

Observer = Callable[["State", "Record", "Tensor"], None]


class Progress(Protocol):
    """Who wants to know what a run is doing."""

    def doing(self, what: str) -> None:
        """Something without steps begins: ``encoding the prompt``."""
        ...

    def step(self, record: Record) -> None:
        """A step ended."""
        ...


class Silent:
    """A Progress that says nothing."""

    def doing(self, what: str) -> None:
        """Nothing."""

    def step(self, record: Record) -> None:
        """Nothing."""


def run(
    plan: Plan,
    inputs: Inputs,
    *,
    out: str | Path | Target | None = None,
    run_dir: str | Path | None = None,
    observers: Sequence[Observer] = (),
    progress: Progress | None = None,
    resume: str | Path | None = None,
    force: bool = False,
    warm: Warm | None = None,
    decode: bool = True,
) -> Result:
    """Make a video.

    Args:
        plan: From ``resolve``.
        inputs: Prompt, images, seed.
        out: Where to write the result: ``.mp4``, ``.webp``, ``.png``, a folder of frames
            (``out/``), or ``.safetensors``: the latent, not decoded. None writes none.
        run_dir: The run folder; ``OUT.run`` if ``out`` is given, else none.
        observers: Called after each step with (state, record, denoised), read-only.
        progress: Told what is going on.
        resume: Run folder of a run that stopped early; continued bit for bit. A run of another
            schedule, other weights, other versions or another kind of device is refused.
        force: Resume such a run all the same, with a warning.
        warm: Keeps weights and encoded prompts for the next run that is given it.
        decode: Whether the latent is decoded at once; else where ``Result.video`` is asked for.

    Raises:
        InputError: Inputs that the family cannot use.
        WeightsError: A weight file is missing.
        OutputError: Something could not be written.
        NumericsError: A model predicted NaN or infinity.
        Cancelled: An observer stopped the run; its run folder keeps a checkpoint.
    """
    if plan.missing:
        raise missing_error(plan.missing)
    if isinstance(inputs, str):
        raise InputError(
            "a run is made from Inputs", value=inputs, remedy="gatekit.Inputs(prompt=...)"
        )
    check_start(plan, inputs)
    plan.family.check_inputs(inputs)
    check_devices(plan)
    target = Target.of(out).check(plan.video.frames) if out is not None else None
    folder = _folder(target, run_dir, resume)
    kept = warm or Cold()
    plan = kept.adopt(plan)
    execution = _Execution(plan, inputs, target, folder, progress or Silent(), kept, decode)
    with deterministic(plan.schedule.deterministic):
        return execution.go(observers, resume, force)


def check_devices(plan: Plan) -> None:
    """Raise InputError where torch cannot use the device of the run, or of one of its sections."""
    check_device(plan.device)
    for section, part in plan.family.components.given().items():
        if part.device is not None:
            where = plan.schedule.source.where((section, "device"))
            check_device(part.device, where, f"choose another one: --set {section}.device=cpu")


def check_start(plan: Plan, inputs: Inputs) -> None:
    """Raise InputError unless plan and inputs agree on a video to start from."""
    if plan.start is None and inputs.video is None:
        return
    if inputs.video is None:
        raise InputError(
            "the schedule starts in the midst of the path, which takes a video",
            where=f"start: {plan.start.given}" if plan.start else None,
            remedy="give one with --video, or start from noise with --set start=null",
        )
    if plan.start is None:
        raise InputError(
            "a video to start from, but nothing says how far it is noised",
            where="--video",
            remedy="add --start 0.7 (a sigma), or 'start' to the schedule",
        )
    if not plan.family.takes_video:
        raise InputError(
            f"family {plan.family.name!r} takes no video", where="--video", remedy="leave it out"
        )
    check_clip(inputs.video, plan.video)


def _folder(
    out: Target | None, run_dir: str | Path | None, resume: str | Path | None
) -> RunFolder | None:
    if run_dir is None and resume is not None:
        run_dir = resume
    if run_dir is None and out is not None:
        run_dir = out.run_dir
    return RunFolder(Path(run_dir)) if run_dir is not None else None


@dataclass
class _Execution:
    plan: Plan
    inputs: Inputs
    out: Target | None
    folder: RunFolder | None
    progress: Progress
    warm: Warm
    decode: bool = True
    timings: dict[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        self.unchanged = Unchanged(self.plan.files())

    def go(
        self, observers: Sequence[Observer], resume: str | Path | None, force: bool = False
    ) -> Result:
        earlier = open_run_folder(resume) if resume is not None else None
        if self.folder is None:
            return self._make(observers, None)
        try:
            state = self.folder.begin(self.plan, self.inputs, self.out, earlier, force=force)
            try:
                return self._make(observers, state)
            except BaseException as exc:
                self._stopped(self.folder, exc)
                raise
        finally:
            self.folder.close()

    @staticmethod
    def _stopped(folder: RunFolder, exc: BaseException) -> None:
        """Keep the state, and the traceback of what is nobody's input."""
        with contextlib.suppress(Exception):
            folder.stop()
        ours = isinstance(exc, GatekitError) and not isinstance(exc, PluginError)
        if isinstance(exc, Exception) and not ours:
            path = folder.log("".join(traceback.format_exception(exc)))
            if path is not None:
                exc.add_note(f"the traceback is in {path}")

    def _make(self, observers: Sequence[Observer], state: State | None) -> Result:
        began = time.perf_counter()
        recorded = self.folder is not None or self.out is not None or self.warm.keeps
        hashes = self.warm.hashes(self.plan) if recorded else None
        trajectory = self._denoise(observers, state)
        if self.folder is not None:  # the steps before a resume belong to the result too
            trajectory = replace(trajectory, records=tuple(self.folder.records))
        latent = trajectory.x[0].float().cpu()
        failed = self._keep_latent(latent)
        video: Tensor | None = None
        if self.decode if self.out is None else self.out.kind != "latent":
            self.unchanged.check(self.plan.family.component_files().get("vae", ()))
            video = self._timed(
                "decoding",
                lambda: decoded(
                    self.warm.loaded,
                    self.plan.device,
                    lambda: decode_latent(self.plan, latent),
                    self._tiled(latent),
                ),
            )
        weights = hashes.result() if hashes is not None else None
        run_dir = self.folder.path if self.folder is not None else None
        result = Result(video, latent, trajectory, self.plan, self.inputs, run_dir, weights)
        if (out := self.out) is not None:
            self._timed("writing", lambda: result.save(out))
        if failed is not None:
            raise failed
        self.timings["total"] = time.perf_counter() - began
        if self.folder is not None:
            self.folder.finish(
                timings=self.timings,
                peak_memory=peak_memory(self.plan.device),
                weights=weights,
            )
        return result

    def _tiled(self, latent: Tensor) -> Callable[[], Tensor] | None:
        """Decoding in smaller tiles; None where there is no VAE section, or tiles are small."""
        family = self.plan.family
        components, vae = family.components, family.components.vae
        if vae is None or (isinstance(vae.tile, int) and vae.tile <= TILE):
            return None

        def decode() -> Tensor:
            family.components = replace(components, vae=replace(vae, tile=TILE))
            try:
                return decode_latent(self.plan, latent)
            finally:
                family.components = components

        return decode

    def _timed(self, what: str, call: Callable[[], Any]) -> Any:
        self.progress.doing(what)
        began = time.perf_counter()
        value = call()
        self.timings[what] = time.perf_counter() - began
        return value

    def _keep_latent(self, latent: Tensor) -> OutputError | None:
        """Save the latent before anything else can fail; the video is tried all the same."""
        try:
            if self.folder is not None:
                self.folder.save_latent(latent)
        except OutputError as exc:
            return exc
        return None

    def _denoise(self, observers: Sequence[Observer], state: State | None) -> Trajectory:
        residency = Residency(self.plan, self.warm.loaded)
        try:
            residency.start(state.phase if state is not None else 0)
            trajectory = self._sample(residency, observers, state)
            residency.leave_room("vae")
            return trajectory
        finally:
            residency.close()
            self.warm.settle()
            self.timings |= {f"loading {k}": s for k, s in residency.seconds.items()}

    def _sample(
        self, residency: Residency, observers: Sequence[Observer], state: State | None
    ) -> Trajectory:
        from gatekit.noise import NoiseSource
        from gatekit.runner import run_stages

        plan, noise = self.plan, NoiseSource(self.inputs.seed)
        conditionings: Mapping[str, Any] = self._timed(
            "encoding", lambda: self.warm.encode(plan, self.inputs)
        )
        path = as_path(plan.family.path)
        x = noise.normal((1, *plan.family.latent_shape(plan.video)), step=0, purpose="start")
        x = self._started(x, path) if state is None else x
        if self.folder is not None:
            self.folder.encoded(tensors_hash(conditionings))
        stages = [self._stage(phase, conditionings, residency) for phase in plan.phases]
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
                observers=[lambda _, record, __: self.progress.step(record), *observers],
                checkpoint=folder.checkpoint if folder is not None else None,
                hooks=registry().manager.hook,
                plan=plan,
            )
            last = trajectory.state
            known = conditionings[plan.phases[-1].guidance.needs[0]].with_known
            return replace(trajectory, state=replace(last, x=known(last.x)))
        finally:
            self.timings["steps"] = time.perf_counter() - began

    def _started(self, noise: Tensor, path: NoisePath) -> Tensor:
        """The first state: alpha x0 + sigma n with a video, else noise at the path's level."""
        plan = self.plan
        sigma = plan.run_sigmas[0]
        if plan.start is None:
            # Plain noise on a flow, also where it starts a little below 1: Wan's code does so.
            return noise * sigma if math.isinf(path.sigma_max) else noise
        frames = clip_frames(self.inputs.video, plan.video)
        encode = plan.family.encode_video
        x0: Tensor = self._timed(
            "encoding the video", lambda: encode(frames, plan.video, plan.device)
        )
        return path.alpha(sigma) * x0.float() + sigma * noise.to(x0.device)

    def _stage(
        self, phase: PlannedPhase, conditionings: Mapping[str, Any], residency: Residency
    ) -> Stage:
        from gatekit.stage import Stage

        for name in phase.guidance.needs:
            if name not in conditionings:
                raise InputError(
                    f"guidance {phase.guidance.name!r} needs a conditioning {name!r}, which family "
                    f"{self.plan.family.name!r} does not give",
                    where=f"phase {phase.name}",
                    remedy="use another guidance in that phase",
                )
        plan, opened = self.plan, list[Guided]()
        known = conditionings[phase.guidance.needs[0]].with_known

        def open_model() -> Evaluate:
            self.progress.doing(f"loading {phase.variant}")
            files = plan.variants[phase.variant].files()
            self.unchanged.check(files)
            plan.variants[phase.variant].adjust(phase.params)
            plan.variants[phase.variant].configure(phase.execution)
            variant = residency.acquire(phase)
            self.progress.doing(phase.name)

            guided = Guided(variant, phase.guidance, conditionings, phase.cache)
            opened.append(guided)

            def evaluate(x: Tensor, sigma: float, memory: Memory) -> tuple[Tensor, Memory]:
                self.unchanged.check_held(files)
                counted = guided.passes, guided.skipped

                def velocity() -> tuple[Tensor, Memory]:
                    guided.passes, guided.skipped = counted  # a second attempt counts once
                    return guided.velocity(x, sigma, memory)

                v, after = residency.guarded(phase, velocity)
                return known(x - sigma * v), after

            return evaluate

        return Stage(
            name=phase.name,
            field=phase.field,
            sampler=phase.sampler,
            strategy=phase.strategy,
            history=phase.history,
            open=open_model,
            passes=lambda: sum(guided.passes for guided in opened),
            skipped=lambda: sum(guided.skipped for guided in opened),
            model=phase.variant,
        )
