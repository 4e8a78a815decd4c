"""Metric: one measure of a finished video, offered by plugins."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

from gatekit.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

Need = Literal["latent", "video", "trace", "reference", "caption"]
Trace = Sequence[tuple[float, "Tensor"]]


class Sample:
    """What a metric may look at: one result, and the result it is compared with.

    Args:
        video: float32 ``[frames, height, width, 3]`` in [0, 1], or what makes it when asked for.
        latent: float32 ``[C, T, H, W]``.
        prompt: What it was to show.
        fps: Frames a second.
        trace: Pairs (sigma, D at the start of that step), sigma falling.
        reference: What it is compared with: the same prompt and noise.
    """

    def __init__(
        self,
        *,
        video: Tensor | Callable[[], Tensor] | None = None,
        latent: Tensor | None = None,
        prompt: str = "",
        fps: float = 16.0,
        trace: Trace = (),
        reference: Sample | None = None,
    ) -> None:
        self._video, self._latent, self._reference = video, latent, reference
        self.prompt, self.fps, self.trace = prompt, fps, tuple(trace)

    @cached_property
    def video(self) -> Tensor:
        """The frames. Raises InputError where there are none."""
        if self._video is None:
            raise _lacking("video")
        return self._video() if callable(self._video) else self._video

    @property
    def latent(self) -> Tensor:
        """The latent. Raises InputError where there is none."""
        if self._latent is None:
            raise _lacking("latent")
        return self._latent

    @property
    def reference(self) -> Sample:
        """What it is compared with. Raises InputError where there is none."""
        if self._reference is None:
            raise _lacking("reference")
        return self._reference


def _lacking(what: Need) -> InputError:
    return InputError(f"this metric needs a {what}", remedy=f"give the sample's {what}")


class Metric(ABC):
    """One measure of a finished video.

    Class attributes:
        name: What sweeps say under ``metrics``.
        higher_is_better: Its direction.
        perfect: Its value for a video that is its reference, or as its caption says.
        needs: What it looks at: ``latent``, ``video``, ``trace``, ``reference``, ``caption``.
        detects: Corruptions (``gatekit_research.corruptions``) that make it worse, the more the
            stronger they are; held by tests.
        binary: Whether values are 0 or 1, so that flips are counted.
        unit: ``dB``, where it has one.
    """

    name: ClassVar[str]
    higher_is_better: ClassVar[bool]
    perfect: ClassVar[float]
    needs: ClassVar[frozenset[Need]]
    detects: ClassVar[frozenset[str]] = frozenset()
    binary: ClassVar[bool] = False
    unit: ClassVar[str] = ""

    @abstractmethod
    def measure(self, sample: Sample) -> float | Mapping[str, float]:
        """The value; or values of several parts, each then called ``name.part``.

        Raises:
            InputError: The sample lacks what ``needs`` says.
        """

    def curve(self, sample: Sample) -> Sequence[tuple[float, float]]:
        """Pairs (sigma, value) along the run, where the metric has them."""
        return ()

    def check_prompt(self, prompt: str) -> None:  # noqa: B027  (nothing unless a metric says)
        """Raise InputError for a prompt that this metric cannot judge; asked before a sweep."""
