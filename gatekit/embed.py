"""What a result made by gatekit carries: its schedule and inputs, to make it again.

In an mp4 and a PNG as ``comment``, in a WebP as EXIF's ImageDescription, in a safetensors file
as ``comment`` of its metadata: the same JSON everywhere.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from gatekit.errors import InputError, ScheduleError
from gatekit.jsontext import json_text, read_json
from gatekit.safeheader import read_metadata
from gatekit.suggest import install_extra

KEY = "comment"
FORMAT = "gatekit-video-1"
DESCRIPTION = 0x010E  # EXIF ImageDescription
LONGEST = 1 << 20  # characters of the metadata that are read
CHUNKS = 200_000  # of a WebP that are passed over; each frame is one
FIRST = "0001.png"  # the first of a folder of frames


@dataclass(frozen=True)
class Carried:
    """The content of the metadata.

    Attributes:
        schedule: The resolved schedule as JSON text (which is YAML).
        inputs: Prompt, negative prompt, seed, and names and hashes of images.
        weights: SHA-256 of every weight file, by name (see ``provenance.by_name``).
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
        return json_text(content, sort_keys=True)


def carries(path: Path) -> bool:
    """Whether a name is that of a result, and not of a schedule file."""
    return path.suffix.lower() in READERS or _is_file(path / FIRST)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # in a folder that may not be looked into
        return False


def read_embedded(path: Path) -> Carried:
    """Read what a result carries; a folder of frames carries what its first frame does.

    Raises:
        ScheduleError: No such file, no readable one, or one that gatekit did not make.
    """
    file = path / FIRST if path.is_dir() else path
    if not file.is_file():
        raise ScheduleError("no such video", where=str(path), remedy="check the path")
    suffix = file.suffix.lower()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, on pictures that are large or damaged
            text = READERS[suffix](file) if suffix in READERS else ""
    except InputError:
        raise
    except Exception as exc:  # readers of pictures raise nearly everything
        raise ScheduleError(
            f"no readable {suffix[1:]}",
            where=str(path),
            remedy="give a result that gatekit wrote",
        ) from exc
    return of_text(text, path)


def of_text(text: str, path: Path) -> Carried:
    """What the text in a result's metadata says; it may come from a stranger.

    Args:
        text: The text.
        path: The result.

    Raises:
        ScheduleError: It is not of gatekit's form.
    """
    try:
        if len(text) > LONGEST:
            raise ValueError("longer than any that gatekit wrote")
        content = json.loads(text)
        if content["format"] != FORMAT or not isinstance(content["schedule"], dict):
            raise KeyError("format")
        weights = cast(dict[str, Any], {**content["weights"]})
        if not all(isinstance(digest, str) for digest in weights.values()):
            raise TypeError("weights")
        folder, inputs = at_home(path, {**content, "inputs": checked_inputs(content["inputs"])})
        return Carried(json.dumps(content["schedule"]), inputs, weights, folder)
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise ScheduleError(
            "this file carries no schedule",
            where=str(path),
            remedy="only results that gatekit wrote can be made again; give a schedule file",
        ) from exc


def checked_inputs(inputs: Any) -> dict[str, Any]:
    """Inputs of the kinds that gatekit writes, files by their names alone.

    Raises:
        TypeError: One is of another kind.
    """
    texts, files = ("prompt", "negative_prompt"), ("image", "last_image", "video")
    for name, value in {**inputs}.items():
        numbers = cast(list[Any], value if isinstance(value, list) else [value])
        record = cast(dict[str, Any], value) if isinstance(value, dict) else {}
        fits = (
            (name in texts and isinstance(value, str))
            or (name == "seed" and numbers and all(type(n) is int for n in numbers))
            or (
                name in files and record and all(isinstance(v, str | None) for v in record.values())
            )
        )
        if not fits and value is not None:
            raise TypeError(name)
    return {name: without_folder(value) for name, value in inputs.items()}


def _of_mp4(path: Path) -> str:
    container: Any
    # By the demuxer of mp4 alone: others would follow what the file says to further files.
    # No decoder begins, as FFmpeg's do to look at the streams: 1 pixel is too few for any.
    options = {"protocol_whitelist": "file", "max_pixels": "1"}
    with import_av().open(str(path), format="mp4", options=options) as container:
        return str(container.metadata.get(KEY, ""))


def _of_png(path: Path) -> str:
    with import_pillow().open(path, formats=["PNG"]) as image:
        found: dict[str, Any] = image.info
        return str(found.get(KEY, ""))


def _of_webp(path: Path) -> str:
    found: dict[int, Any] = import_pillow().Exif()
    found.load(_chunk(path, b"EXIF"))  # pyright: ignore
    text: str = found.get(DESCRIPTION, "")
    return text.encode("latin-1").decode()  # Pillow takes UTF-8 for Latin-1


def _chunk(path: Path, wanted: bytes) -> bytes:
    """A chunk of a WebP. Pillow would read all of the file, up to 4 GiB, and begin to decode it."""
    with path.open("rb") as stream:
        if (start := stream.read(12))[:4] != b"RIFF" or start[8:] != b"WEBP":
            raise ValueError("no WebP")
        for _ in range(CHUNKS):
            head = stream.read(8)
            length = int.from_bytes(head[4:], "little")
            if head[:4] == wanted:
                return stream.read(min(length, 2 * LONGEST))
            if len(head) < 8:
                break
            stream.seek(length + length % 2, 1)
    return b""


def _of_safetensors(path: Path) -> str:
    return read_metadata(path, KEY)


READERS: dict[str, Callable[[Path], str]] = {
    ".mp4": _of_mp4,
    ".png": _of_png,
    ".webp": _of_webp,
    ".safetensors": _of_safetensors,
}


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
    path = path.absolute()  # "." has no name, and no other parent
    folder = path.parent
    carried: dict[str, Any] = content["inputs"]
    inputs = {k: with_file(v, lambda file: str(folder / file)) for k, v in carried.items()}
    for run_dir in run_dirs(path):
        try:
            earlier = read_json(run_dir / "run.json")
            same = {k: without_folder(v) for k, v in earlier["inputs"].items()} == carried
            if same and earlier["schedule"] == content["schedule"] and earlier["folder"]:
                return Path(earlier["folder"]), earlier["inputs"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return folder, inputs


def run_dirs(path: Path) -> list[Path]:
    """Where the run folder of a result (absolute) may be: beside it, whatever it was written as."""
    stems = (path.stem, re.sub(r"-\d{4,}$", "", path.stem))
    beside = [path.with_name(f"{stem}.run") for stem in stems]
    folder = path if path.is_dir() else path.parent
    return [*beside, folder.with_name(f"{folder.name}.run")]


def import_pillow() -> Any:
    """Pillow's Image module. Raises InputError where it is not installed."""
    try:
        from PIL import Image
    except ImportError as exc:
        raise InputError(
            "pictures are read and written with Pillow, which is not installed",
            remedy=install_extra("wan"),
        ) from exc
    return Image


def import_av() -> Any:
    """PyAV. Raises InputError where it is not installed."""
    try:
        import av
    except ImportError as exc:
        raise InputError(
            "videos are read and written with PyAV, which is not installed",
            remedy=install_extra("wan"),
        ) from exc
    return av
