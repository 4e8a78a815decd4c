"""The profile as a file: what was measured, of what, over which steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

import gatekit

FORMAT = "gatekit-profile-1"
RISK_FROM = 0.9  # commitment risk counts the steps that start at this sigma or above


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Step(_Model):
    """One step of the reference's run.

    Attributes:
        sigma: Where it starts.
        sigma_next: Where it ends.
        phase: Name of its phase.
        expert: Expert of that phase's variant; None for a single model.
        nfe: Evaluations that it takes.
    """

    sigma: float
    sigma_next: float
    phase: str
    expert: str | None
    nfe: int


class Row(_Model):
    """One variant before one step: means over all runs.

    Attributes:
        step: Number of the step.
        sigma: Its start.
        relative: ||v_q - v||/||v||.
        cosine: Of v_q and v.
        x0: ||D_q - D||/||D||.
        rms: Root mean square of v_q - v over the latent.
        rms_sd: Its standard deviation over runs.
        seconds: Median of an evaluation, all of guidance's passes included.
    """

    step: int
    sigma: float
    relative: float
    cosine: float
    x0: float
    rms: float
    rms_sd: float
    seconds: float


class Measured(_Model):
    """One variant.

    Attributes:
        expert: Its expert.
        spec: As under ``variants`` of a schedule, files with their paths.
        files: ``gatekit.file_identity`` of every file that decides what it predicts.
        storage: Name of the weights' precision.
        bits: Mean bits a weight.
        file_bytes: Size on disk.
        resident_bytes: Expected memory when loaded.
        peak_bytes: Most memory taken while it was evaluated, where the device tells.
        rows: By step.
    """

    expert: str | None
    spec: dict[str, Any]
    files: list[tuple[str, int, str]]
    storage: str
    bits: float
    file_bytes: int
    resident_bytes: int
    peak_bytes: int | None
    rows: list[Row]

    @property
    def seconds(self) -> float:
        """Median of an evaluation over its steps."""
        from statistics import median

        return median(row.seconds for row in self.rows)

    @property
    def bytes_needed(self) -> int:
        """``peak_bytes`` where it was measured, else ``resident_bytes``."""
        return self.peak_bytes or self.resident_bytes

    def error(self, steps: list[Step], least: float = 0.0) -> float:
        """Sum of |ds| rms(v_q - v) over its steps that start at ``least`` or above."""
        spans = {i: step.sigma - step.sigma_next for i, step in enumerate(steps)}
        return sum(spans[row.step] * row.rms for row in self.rows if row.sigma >= least)


class Made(_Model):
    """From what and on what a profile was made.

    Attributes:
        schedule: Path of the schedule file.
        overrides: What was changed in it, references and variants included.
        name: Its name.
        family: Name of the family.
        video: Width, height, frames.
        device: Name of the device.
        compute: Phase -> what its arithmetic ran in.
        guidance: Phase -> its guidance.
        components: Identities of the text encoder's and the VAE's files.
        prompts: Texts.
        images: Identity of each prompt's image, or None.
        seeds: Of each prompt.
        gatekit: Version.
        torch: Version.
    """

    schedule: str
    overrides: list[str]
    name: str
    family: str
    video: list[float]
    device: str
    compute: dict[str, str]
    guidance: dict[str, str]
    components: list[tuple[str, int, str]]
    prompts: list[str]
    images: list[tuple[str, int, str] | None]
    seeds: list[int]
    gatekit: str
    torch: str


class Profile(_Model):
    """What ``gatekit profile`` writes.

    Attributes:
        format: Version of this layout.
        made: From what.
        steps: Of the reference's run.
        reference: Phase -> name of its variant in the reference.
        variants: By name, those of the reference first.
    """

    format: Literal["gatekit-profile-1"]
    made: Made
    steps: list[Step]
    reference: dict[str, str]
    variants: dict[str, Measured]

    @property
    def runs(self) -> int:
        """Runs that were averaged."""
        return len(self.made.prompts) * len(self.made.seeds)


def read_profile(path: Path) -> Profile:
    """Read a profile. Raises InputError for any other file."""
    remedy = "give the .json that 'gatekit profile' wrote"
    try:
        return Profile.model_validate_json(path.read_text("utf-8"))
    except OSError as exc:
        raise gatekit.InputError("no readable profile", where=str(path), remedy=remedy) from exc
    except (ValidationError, UnicodeDecodeError) as exc:
        raise gatekit.InputError("not a profile", where=str(path), remedy=remedy) from exc


def is_profile(path: Path) -> bool:
    """Whether a file says that it is one; its content may be of an older layout."""
    try:
        return str(gatekit.read_json(path, most=None)["format"]).startswith("gatekit-profile")
    except (OSError, ValueError, KeyError, TypeError):
        return False
