"""Result: the video, the latent, and what they came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gatekit.embed import Carried
from gatekit.output import check_target, encode_mp4, make_folder, write_atomic
from gatekit.provenance import Hashes, inputs_record
from gatekit.runfolder import LATENT

if TYPE_CHECKING:
    from torch import Tensor

    from gatekit.family import Inputs
    from gatekit.plan import Plan
    from gatekit.state import Trajectory


@dataclass(frozen=True)
class Result:
    """What a run gives.

    Attributes:
        video: float32 ``[frames, height, width, 3]`` in [0, 1], on the CPU.
        latent: float32 ``[C, T, H, W]``, on the CPU.
        trajectory: Records of every step.
        plan: What ran.
        inputs: What it was made from.
        run_dir: The run folder, if there is one.
        weights: SHA-256 of every weight file by path, where it is known already.
    """

    video: Tensor
    latent: Tensor
    trajectory: Trajectory
    plan: Plan
    inputs: Inputs
    run_dir: Path | None = None
    weights: Mapping[str, str] | None = field(default=None, repr=False)

    def save(self, path: str | Path) -> Path:
        """Write the video as mp4 (H.264), its schedule and inputs in the metadata.

        Raises:
            InputError: The name is not that of an .mp4, or PyAV is missing.
            OutputError: It could not be written; nothing is left under the name.
        """
        path = check_target(path)
        make_folder(path.absolute().parent)
        data = encode_mp4(self.video, self.plan.video.fps, self.carried().dump())
        kept = f"; the latent is kept in {self.run_dir / LATENT}" if self.run_dir else ""
        return write_atomic(path, data, "free space there, or choose another place" + kept)

    def carried(self) -> Carried:
        """What the video's metadata says."""
        hashes = self.weights
        if hashes is None:
            hashes = Hashes(self.plan.files()).result()
        return Carried(
            json.dumps(self.plan.resolved()),
            inputs_record(self.inputs),
            {Path(path).name: value for path, value in hashes.items()},
        )
