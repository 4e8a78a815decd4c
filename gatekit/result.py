"""Result: the video, the latent, and what they came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gatekit.determinism import deterministic
from gatekit.embed import Carried
from gatekit.latent import decode_latent, latent_bytes
from gatekit.output import make_folder, write_atomic
from gatekit.provenance import Hashes, by_name, inputs_record
from gatekit.runfolder import LATENT
from gatekit.target import Target

if TYPE_CHECKING:
    from torch import Tensor

    from gatekit.family import Inputs
    from gatekit.plan import Plan
    from gatekit.state import Trajectory


@dataclass(frozen=True)
class Result:
    """What a run gives.

    Attributes:
        decoded: The video, if it was decoded; ``video`` decodes it where it is asked for.
        latent: float32 ``[C, T, H, W]``, on the CPU.
        trajectory: Records of every step.
        plan: What ran.
        inputs: What it was made from.
        run_dir: The run folder, if there is one.
        weights: SHA-256 of every weight file by path, where it is known already.
    """

    decoded: Tensor | None
    latent: Tensor
    trajectory: Trajectory
    plan: Plan
    inputs: Inputs
    run_dir: Path | None = None
    weights: Mapping[str, str] | None = field(default=None, repr=False)

    @property
    def video(self) -> Tensor:
        """float32 ``[frames, height, width, 3]`` in [0, 1], on the CPU; decoded when asked for."""
        if self.decoded is None:
            with deterministic(self.plan.schedule.deterministic):
                object.__setattr__(self, "decoded", decode_latent(self.plan, self.latent))
        assert self.decoded is not None
        return self.decoded

    def save(self, path: str | Path | Target) -> Path:
        """Write the result, its schedule and inputs in the metadata.

        The name says as what: ``.mp4`` (H.264), ``.webp`` (animated), ``.png`` (one frame, or
        ``NAME-0001.png`` and so on), ``NAME/`` (a folder of such frames), or ``.safetensors`` (the
        latent). A text that ends in ``/`` is a folder; a ``Path`` cannot say so for a new one.

        Returns:
            The file or folder; of numbered frames the first.

        Raises:
            InputError: No such kind of file, or what writes it is missing.
            OutputError: It could not be written; nothing is left under the name.
        """
        target = Target.of(path).check(self.plan.video.frames)
        kept = f"; the latent is kept in {self.run_dir / LATENT}" if self.run_dir else ""
        remedy = "free space there, or choose another place" + kept
        comment = self.carried().dump()
        if target.kind == "latent":
            make_folder(target.path.absolute().parent)
            return write_atomic(target.path, latent_bytes(self.latent, comment), remedy)
        return target.write(self.video, self.plan.video.fps, comment, remedy)

    def carried(self) -> Carried:
        """What the video's metadata says."""
        hashes = self.weights
        if hashes is None:
            hashes = Hashes(self.plan.files()).result()
        return Carried(
            json.dumps(self.plan.resolved()),
            inputs_record(self.inputs),
            by_name(hashes),
        )
