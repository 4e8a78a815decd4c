"""Schedule: the pydantic models of a schedule file. ``load.py`` reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    model_validator,
)

from gatekit.consistency import check
from gatekit.errors import ScheduleError
from gatekit.validate import validated
from gatekit.yamlsource import Node, Source, of_value, source_of

NAME = r"^[A-Za-z_][A-Za-z0-9_-]*$"
SIZES = {"B": 0, "KIB": 10, "MIB": 20, "GIB": 30, "TIB": 40}
DECIMAL = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


class Model(BaseModel):
    """Frozen; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def spelled_out(value: Any) -> Any:
    """``euler`` is short for ``{use: euler}``."""
    return {"use": value} if isinstance(value, str) else value


class Use(BaseModel):
    """A plugin by name, and its parameters: every other key."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    use: str = Field(min_length=1)

    @property
    def params(self) -> dict[str, Any]:
        """Every key but ``use``; the plugin's ``Params`` validates them at plan time."""
        return dict(self.model_extra or {})


Named = Annotated[Use, BeforeValidator(spelled_out)]


def default_use(name: str) -> Any:
    """A Use that may leave ``use`` out: its parameters are then those of ``name``."""

    def fill(value: Any) -> Any:
        value = spelled_out(value)
        return {"use": name, **cast(Any, value)} if isinstance(value, dict) else value

    return BeforeValidator(fill)


class GridUse(Use):
    """``sigmas``: a grid by name, its number of steps, and its parameters.

    Attributes:
        steps: Steps of the whole run.
        allot: By what they are shared between phases; each then has a grid over its own stretch.
    """

    steps: int | None = Field(default=None, ge=1, le=10_000)
    allot: Literal["theta", "lam", "grid"] | None = None


class Until(Model):
    """Where a phase ends or a run from a video starts, in one of five forms; a number is ``sigma``.

    Attributes:
        sigma: Noise level after shift.
        timestep: Model timestep: 1000 sigma.
        fraction: Fraction of the steps.
        step: Number of steps from the start of the run.
        log_snr: log(alpha^2 / sigma^2), that is 2 lam.
    """

    sigma: float | None = Field(default=None, ge=0)
    timestep: float | None = Field(default=None, ge=0)
    fraction: float | None = Field(default=None, ge=0, le=1)
    step: int | None = Field(default=None, ge=1)
    log_snr: float | None = None

    @model_validator(mode="after")
    def _one(self) -> Until:
        if len(self.model_dump(exclude_none=True)) != 1:
            forms = "sigma, timestep, fraction, step, log_snr"
            raise ValueError(f"a boundary is exactly one of {forms}")
        return self

    @property
    def form(self) -> tuple[str, float]:
        """The form's name and its value."""
        ((name, value),) = self.model_dump(exclude_none=True).items()
        return name, value

    def __str__(self) -> str:
        name, value = self.form
        return f"{name} {value:g}"


def as_sigma(value: Any) -> Any:
    """A bare number is ``{sigma: number}``."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"sigma": value}
    if value is not None and not isinstance(value, Mapping | Until):
        raise ValueError("a boundary is a sigma, or a form of it such as {timestep: 900}")
    return cast(Any, value)


def as_bytes(value: Any) -> Any:
    """``16GiB`` -> 17179869184; a bare number is bytes, and then no small one."""
    if isinstance(value, int | float) and value < 1 << 20:
        counted = value >= 1 and not isinstance(value, bool)
        meant = f"{value:g}{'GiB' if value < 1024 else 'MiB'}" if counted else "16GiB"
        raise ValueError(f"a bare number is bytes, and these are few; write {meant}")
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*([0-9.]+)\s*([KMGT]?i?B)\s*", value, re.IGNORECASE)
    try:
        number = float(match[1]) if match else None
    except ValueError:
        number = None
    if match is None or number is None or number > 1e15:
        raise ValueError("a size is a number and a unit, such as 16GiB or 800MiB")
    unit = match[2].upper()
    return int(number * (DECIMAL[unit] if unit in DECIMAL else 1 << SIZES[unit]))


Size = Annotated[int, BeforeValidator(as_bytes), Field(gt=0)]


class Component(Model):
    """``text_encoder`` or ``vae``: a file, the precision it runs in, and where."""

    file: str = Field(min_length=1)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    device: str | None = None
    tokenizer: str | None = None


def as_tile(value: Any) -> Any:
    """``auto``, ``never``, or pixels."""
    if value in ("auto", "never") or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise ValueError("a tile is auto, never, or a number of pixels")


class VAE(Component):
    """``vae``: also how it cuts frames that are too large to be coded whole."""

    tile: Annotated[
        Literal["auto", "never"] | Annotated[int, Field(gt=0)], BeforeValidator(as_tile)
    ] = "auto"


class Video(Model):
    """Size of the video; the family fills in what is left out."""

    width: int | None = Field(default=None, gt=0, le=16384)
    height: int | None = Field(default=None, gt=0, le=16384)
    frames: int | None = Field(default=None, gt=0, le=100_000)
    fps: float | None = Field(default=None, ge=0.01, le=1000)


class Memory(Model):
    """What may be used; default: what is free.

    Attributes:
        vram: Bytes of the run's device, activations included.
        ram: Bytes of the host's memory through which weights go, beside the mapped files.
    """

    vram: Size | None = None
    ram: Size | None = None


def as_compile(value: Any) -> Any:
    """``auto``, true, or false."""
    if value == "auto" or isinstance(value, bool):
        return value
    raise ValueError("compile is auto, true or false")


class PhaseEntry(Model):
    """One entry of ``phases``."""

    name: str = Field(pattern=NAME)
    until: Annotated[Until | None, BeforeValidator(as_sigma)] = None
    variant: str
    adjust: dict[str, Any] = {}
    sampler: Named
    strategy: Annotated[Use, default_use("grid")] = Use(use="grid")
    guidance: Annotated[Use, default_use("none")] = Use(use="none")
    cache: Annotated[Use, default_use("none")] = Use(use="none")
    history: Annotated[Use, default_use("auto")] = Use(use="auto")
    compute: Literal["fp32", "bf16", "fp16", "fp8"] | None = None
    attention: str = Field(default="auto", min_length=1)
    compile: Annotated[Literal["auto"] | bool, BeforeValidator(as_compile)] = "auto"
    steps: int | None = Field(default=None, ge=1, le=10_000)
    share: float | None = Field(default=None, gt=0, le=1000)
    sigmas: Annotated[Use | None, BeforeValidator(spelled_out)] = None


class Schedule(Model):
    """One schedule file: one reproducible video, given its inputs."""

    version: Literal[1]
    name: str = Field(min_length=1)
    family: Named
    text_encoder: Component | None = None
    vae: VAE | None = None
    variants: dict[Annotated[str, Field(pattern=NAME)], Use] = Field(min_length=1)
    video: Video = Video()
    sigmas: Annotated[GridUse, BeforeValidator(spelled_out)]
    start: Annotated[Until | None, BeforeValidator(as_sigma)] = None
    memory: Memory = Memory()
    device: str | None = None
    deterministic: bool = False
    phases: tuple[PhaseEntry, ...] = Field(min_length=1)

    _source: Source = PrivateAttr(default=Source("schedule"))
    _folder: Path | None = PrivateAttr(default=None)
    _outside: bool = PrivateAttr(default=False)

    @property
    def source(self) -> Source:
        """Where every value was written."""
        return self._source

    @property
    def folder(self) -> Path | None:
        """The folder of the schedule file, where its weight files are looked up first."""
        return self._folder

    @property
    def outside(self) -> bool:
        """Whether its files may be outside its folder and the model folders."""
        return self._outside

    @classmethod
    def from_tree(
        cls, root: Node, file: str, folder: Path | None, outside: bool = False
    ) -> Schedule:
        """Validate a tree of places; every error says where. Raises ScheduleError."""
        source = source_of(root, file)
        data = root.plain()
        if not isinstance(data, dict):
            raise ScheduleError(
                "a schedule is a mapping of keys",
                where=file,
                value=data,
                remedy="start with 'version: 1'",
            )
        schedule = validated(cls, data, source, ())
        check(schedule, source)
        schedule._source, schedule._folder, schedule._outside = source, folder, outside
        return schedule

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], folder: Path | None = None) -> Schedule:
        """Validate a dict, as ``to_dict`` gives it."""
        return cls.from_tree(of_value(data, "schedule"), "schedule", folder)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, with nothing left to a default that was not one in the file."""
        return self.model_dump(mode="json", exclude_defaults=True) | {"version": self.version}
