"""What an mp4 made by gatekit carries: its schedule and inputs, to make it again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from gatekit.errors import InputError, ScheduleError

KEY = "comment"
FORMAT = "gatekit-video-1"


@dataclass(frozen=True)
class Carried:
    """The content of the metadata.

    Attributes:
        schedule: The resolved schedule as JSON text (which is YAML).
        inputs: Prompt, negative prompt, seed, and names and hashes of images.
        weights: SHA-256 of every weight file, by name.
        folder: Where weight files are looked up first. Videos are passed on, so it is not
            in the metadata: the run folder beside the video tells, else the video's folder.
    """

    schedule: str
    inputs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    weights: Mapping[str, str] = field(default_factory=dict[str, str])
    folder: Path | None = None

    def dump(self) -> str:
        """As the text that is embedded."""
        content = {
            "format": FORMAT,
            "schedule": json.loads(self.schedule),
            "inputs": {name: without_folder(value) for name, value in self.inputs.items()},
            "weights": dict(self.weights),
        }
        return json.dumps(content, ensure_ascii=False, sort_keys=True)


def read_embedded(path: Path) -> Carried:
    """Read what a video carries.

    Raises:
        ScheduleError: No such file, no video, or one that gatekit did not make.
    """
    if not path.is_file():
        raise ScheduleError("no such video", where=str(path), remedy="check the path")
    av = import_av()
    try:
        with av.open(str(path)) as container:
            text = container.metadata.get(KEY, "")
    except (OSError, ValueError) as exc:
        raise ScheduleError(
            f"no readable video: {exc}", where=str(path), remedy="give an mp4 that gatekit wrote"
        ) from exc
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise KeyError("format")
        folder, inputs = at_home(path, content)
        return Carried(json.dumps(content["schedule"]), inputs, content["weights"], folder)
    except (ValueError, KeyError, TypeError) as exc:
        raise ScheduleError(
            "this video carries no schedule",
            where=str(path),
            remedy="only videos that gatekit wrote can be run again; give a schedule file",
        ) from exc


def with_file(value: Any, change: Callable[[str], str]) -> Any:
    """An image's record with its file changed; anything else as it is."""
    if not isinstance(value, dict):
        return value
    record = cast(dict[str, Any], value)
    return record | {"file": change(record["file"])} if record.get("file") else record


def without_folder(value: Any) -> Any:
    """An image's record with its file name alone."""
    return with_file(value, lambda file: Path(file).name)


def at_home(path: Path, content: Mapping[str, Any]) -> tuple[Path, dict[str, Any]]:
    """Folder of the weight files, and the inputs with paths, as far as this machine knows them."""
    folder = path.parent.absolute()
    carried: dict[str, Any] = content["inputs"]
    inputs = {k: with_file(v, lambda file: str(folder / file)) for k, v in carried.items()}
    try:
        text = (path.with_suffix(".run") / "run.json").read_text("utf-8")
        earlier = json.loads(text)
        same = {k: without_folder(v) for k, v in earlier["inputs"].items()} == content["inputs"]
        if same and earlier["schedule"] == content["schedule"] and earlier["folder"]:
            return Path(earlier["folder"]), earlier["inputs"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return folder, inputs


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
