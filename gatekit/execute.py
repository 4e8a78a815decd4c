"""Running a plan: inputs -> conditioning -> stages -> latent -> video."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gatekit.denoising import Denoising
from gatekit.determinism import deterministic
from gatekit.errors import GatekitError, OutputError, PluginError
from gatekit.latent import decode_latent
from gatekit.leases import leased, mapped
from gatekit.preflight import check_ready
from gatekit.progress import Progress, Silent, Timed
from gatekit.provenance import peak_memory
from gatekit.residency import TILE, decoded
from gatekit.result import Result
from gatekit.runfolder import RunFolder, open_run_folder
from gatekit.target import Target
from gatekit.unchanged import Unchanged
from gatekit.warm import Cold, Warm

if TYPE_CHECKING:
    from torch import Tensor

    from gatekit.family import Inputs
    from gatekit.ledger import Observer
    from gatekit.plan import Plan
    from gatekit.state import State


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
        InputError: Inputs that the family cannot use, or no folder for ``out``.
        WeightsError: A weight file is missing.
        OutputError: Something could not be written.
        NumericsError: A model predicted NaN or infinity.
        Cancelled: An observer stopped the run; its run folder keeps a checkpoint.
    """
    check_ready(plan, inputs)
    target = Target.of(out).check_place().check(plan.video.frames) if out is not None else None
    folder = _folder(target, run_dir, resume)
    kept = warm or Cold()
    plan = kept.adopt(plan)
    execution = _Execution(plan, inputs, target, folder, progress or Silent(), kept, decode)
    with deterministic(plan.schedule.deterministic):
        return execution.go(observers, resume, force)


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

    def __post_init__(self) -> None:
        self.unchanged = Unchanged(self.plan.files())
        self.timed = Timed(self.progress)

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
        denoising = Denoising(
            self.plan, self.inputs, self.folder, self.warm, self.unchanged, self.timed
        )
        with leased(mapped(self.plan)):
            trajectory = denoising.run(observers, state)
        if self.folder is not None:  # the steps before a resume belong to the result too
            trajectory = replace(trajectory, records=tuple(self.folder.records))
        latent = trajectory.x[0].float().cpu()
        failed = self._keep_latent(latent)
        video: Tensor | None = None
        if self.decode if self.out is None else self.out.kind != "latent":
            self.unchanged.check(self.plan.family.component_files().get("vae", ()))
            with leased(mapped(self.plan, "vae")):
                video = self.timed(
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
            self.timed("writing", lambda: result.save(out))
        if failed is not None:
            raise failed
        self.timed.seconds["total"] = time.perf_counter() - began
        if self.folder is not None:
            self.folder.finish(
                timings=self.timed.seconds,
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

    def _keep_latent(self, latent: Tensor) -> OutputError | None:
        """Save the latent before anything else can fail; the video is tried all the same."""
        try:
            if self.folder is not None:
                self.folder.save_latent(latent)
        except OutputError as exc:
            return exc
        return None
