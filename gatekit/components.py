"""The family of a plan, its components and its size of video, each checked by the family."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatekit.boundaries import placed
from gatekit.device import check_name
from gatekit.errors import ScheduleError, UserError
from gatekit.family import Components, ComponentSpec, ModelFamily, VideoSpec
from gatekit.schedule import VAE
from gatekit.sections import relocated

if TYPE_CHECKING:
    from gatekit.lookup import Finder
    from gatekit.schedule import Component
    from gatekit.sections import Sections


def made_family(sections: Sections, cls: type[ModelFamily], files: Finder) -> ModelFamily:
    """The family with its components' files found; ScheduleError where a section is missing."""
    params = sections.params(cls, sections.schedule.family, ("family",))
    given = {"text_encoder": sections.schedule.text_encoder, "vae": sections.schedule.vae}
    for section in cls.required:
        if given.get(section) is None:
            raise ScheduleError(
                f"family {cls.name!r} needs the section {section!r}",
                where=sections.source.where((section,)),
                remedy=f"add '{section}: {{file: ...}}'",
            )
    specs = {
        section: _component(sections, section, component, files)
        for section, component in given.items()
        if component is not None
    }
    return cls(params, Components(**specs))


def _component(
    sections: Sections, section: str, component: Component, files: Finder
) -> ComponentSpec:
    if component.device is not None:
        check_name(component.device, sections.source.where((section, "device")))
    return ComponentSpec(
        file=sections.found(component.file, (section, "file"), files),
        precision=component.precision,
        device=component.device,
        tokenizer=sections.found(component.tokenizer, (section, "tokenizer"), files)
        if component.tokenizer
        else None,
        tile=component.tile if isinstance(component, VAE) else "auto",
    )


def check_components(sections: Sections, family: ModelFamily) -> None:
    """Let the family check the header of each component whose file is there."""
    for section, part in family.components.given().items():
        if part.file is None:
            continue
        try:
            family.check_component(section)
        except UserError as exc:
            key = exc.key if isinstance(exc, ScheduleError) and exc.key else ("file",)
            raise relocated(exc, sections.source.where((section, *key))) from exc


def video_of(sections: Sections, family: ModelFamily) -> VideoSpec:
    """The size of the video: the schedule's keys, then the family's; checked by the family."""
    asked = sections.schedule.video.model_dump(exclude_none=True)
    values = dict(family.default_video()) | asked
    for name in ("width", "height", "frames", "fps"):
        if name not in values:
            raise ScheduleError(
                "the size of the video is missing",
                where=sections.source.where(("video", name)),
                remedy=f"add {name!r} there",
            )
    video = VideoSpec(
        int(values["width"]), int(values["height"]), int(values["frames"]), values["fps"]
    )
    placed(sections.schedule, ("video",), lambda: family.check_video(video))
    return video
