"""What an mp4 made by gatekit carries: its schedule and inputs, to make it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gatekit.errors import InputError, ScheduleError

KEY = "comment"
FORMAT = "gatekit-video-1"


@dataclass(frozen=True)
class Carried:
    """The content of the metadata.

    Attributes:
        schedule: The resolved schedule as JSON text (which is YAML).
        folder: Folder of the schedule file, where its weight files were beside.
        inputs: Prompt, negative prompt, seed, and paths and hashes of images.
        weights: SHA-256 of every weight file, by name.
    """

    schedule: str
    folder: Path | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    weights: Mapping[str, str] = field(default_factory=dict[str, str])

    def dump(self) -> str:
        """As the text that is embedded."""
        content = {
            "format": FORMAT,
            "schedule": json.loads(self.schedule),
            "folder": str(self.folder) if self.folder else None,
            "inputs": dict(self.inputs),
            "weights": dict(self.weights),
        }
        return json.dumps(content, ensure_ascii=False, sort_keys=True)


def read_embedded(path: Path) -> Carried:
    """Read what a video carries.

    Raises:
        ScheduleError: No such file, no video, or one that gatekit did not make.
    """
    if not path.is_file():
        raise ScheduleError("no such video", where=str(path))
    av = import_av()
    try:
        with av.open(str(path)) as container:
            text = container.metadata.get(KEY, "")
    except (OSError, ValueError) as exc:
        raise ScheduleError(f"no readable video: {exc}", where=str(path)) from exc
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise KeyError("format")
        folder = content["folder"]
        return Carried(
            json.dumps(content["schedule"]),
            Path(folder) if folder else None,
            content["inputs"],
            content["weights"],
        )
    except (ValueError, KeyError, TypeError) as exc:
        raise ScheduleError(
            "this video carries no schedule",
            where=str(path),
            remedy="only videos that gatekit wrote can be run again; give a schedule file",
        ) from exc


def import_av() -> Any:
    """PyAV. Raises InputError where it is not installed."""
    try:
        import av
    except ImportError as exc:
        raise InputError(
            "videos are read and written with PyAV, which is not installed",
            remedy="pip install 'gatekit-diffusion[wan]'",
        ) from exc
    return av
