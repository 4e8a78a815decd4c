"""The judge as a metric: whether a video of the small model's world shows what its caption says."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, ClassVar

from gatekit import InputError, Metric, Sample

if TYPE_CHECKING:
    from gatekit_tinywan.world import Verdict


def parts(verdict: Verdict, row: int) -> dict[str, float]:
    """Part -> 0 or 1, of one video of a verdict."""
    found = {"all_right": float(verdict.all_right[row])}
    for f in fields(verdict):
        found[f.name] = float(getattr(verdict, f.name)[row].all())
    return found


class CaptionMatch(Metric):
    """Each attribute of a canonical caption, 1 where the video shows it: ``caption.all_right``, ...

    Parts: ``all_right``, ``background``, ``colour``, ``shape``, ``size``, ``direction``, ``speed``,
    ``mark``, ``relation``, ``no_extra``; those of the two things are 1 where both are right.
    """

    name: ClassVar[str] = "caption"
    higher_is_better = True
    perfect = 1.0
    needs = frozenset({"video", "caption"})
    detects = frozenset({"blur", "noise", "shuffle", "colour_shift", "still"})
    binary = True

    def measure(self, sample: Sample) -> dict[str, float]:
        """Part -> 0 or 1."""
        from gatekit_tinywan.world import judge, parse_caption

        self.check_prompt(sample.prompt)
        video = sample.video.permute(3, 0, 1, 2)[None].float()
        if video.shape[2] < 9:
            raise InputError(
                "the judge needs 9 frames", value=video.shape[2], remedy="make more frames"
            )
        return parts(judge(video, [parse_caption(sample.prompt)]), 0)

    def check_prompt(self, prompt: str) -> None:
        """Raise InputError for what is no canonical caption."""
        from gatekit_tinywan.world import parse_caption

        try:
            parse_caption(prompt)
        except ValueError as exc:
            raise InputError(
                "the metric 'caption' judges canonical captions of the small model's world only",
                value=prompt,
                remedy="take one of gatekit_tinywan.world.sample_scenes(...).captions()",
            ) from exc
