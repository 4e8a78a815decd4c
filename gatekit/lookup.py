"""Finding weight files: beside the schedule, in the model folders, then with the family.

Each folder is searched with the sub-folders that ComfyUI uses, so that its ``models``
folder can be given as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gatekit.errors import InputError, ScheduleError, WeightsError
from gatekit.outside import is_inside, outside_error, plain
from gatekit.suggest import nearest

VARIABLE = "GATEKIT_MODELS"
SUBFOLDERS = (
    "",
    "diffusion_models",
    "unet",
    "text_encoders",
    "clip",
    "vae",
    "loras",
)
LISTED = 5_000
LONGEST_NAME, LONGEST_PART = 3_000, 255  # bytes; folders come before it


@dataclass(frozen=True)
class MissingFile:
    """A file that a schedule names and no folder has.

    Attributes:
        name: As the schedule has it.
        where: Place in the schedule.
        looked: Folders searched, without their sub-folders.
        hint: A file there with a name like it.
    """

    name: str
    where: str
    looked: tuple[Path, ...]
    hint: str | None = None

    @property
    def searched(self) -> str:
        """Where gatekit looked, and how to make it look elsewhere."""
        looked = ", ".join(str(folder) for folder in self.looked) or "nowhere"
        return (
            f"looked in {looked} and in their ComfyUI sub-folders; put what is missing there, "
            f"or name its folder with --models-dir or {VARIABLE}"
        )

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return (f"did you mean {self.hint!r}? " if self.hint else "") + self.searched


@dataclass(frozen=True)
class Finder:
    """The folders that are searched, first to last."""

    folders: tuple[Path, ...]

    def find(self, name: str | Path) -> Path | None:
        """Absolute path of a file (or folder of shards), or None."""
        return next((path for path in self.places(name) if path.exists()), None)

    def places(self, name: str | Path) -> list[Path]:
        """Every absolute path that a name may mean, first to last; none goes through ``..``."""
        given = home(Path(name))
        if given.is_absolute():
            return [plain(given)]
        return [plain(folder / sub / given) for folder in self.folders for sub in SUBFOLDERS]

    def check_inside(self, name: str | Path, where: str) -> None:
        """Raise ScheduleError for a name that leads out of the folders."""
        if not all(is_inside(plain(path), self.folders) for path in self.places(name)):
            raise outside_error(
                str(name),
                where,
                "the schedule's folder and the model folders",
                "name its folder with --models-dir, or the file with --set; ",
            )

    def missing(self, name: str | Path, where: str) -> MissingFile:
        """What to say about a file that ``find`` did not find."""
        given = Path(name)
        found = [path for folder in self.folders for path in listing(folder)]
        stems = {path.stem: path.name for path in found if path.suffix == given.suffix}
        close = nearest(given.stem, stems)
        looked = (given.parent,) if given.is_absolute() else self.folders
        return MissingFile(str(name), where, looked, stems[close] if close else None)


def check_file_name(name: str, where: str) -> None:
    """Raise ScheduleError for what cannot be the name of a file on any system."""
    parts = name.encode("utf-8", "replace").replace(b"\\", b"/").split(b"/")
    if "\0" in name or len(name) > LONGEST_NAME or any(len(p) > LONGEST_PART for p in parts):
        raise ScheduleError(
            "no file has such a name", where=where, value=name, remedy="give the name of a file"
        )


def home(path: Path) -> Path:
    """A path that begins with ``~`` in full; as it is where there is no such home."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def listing(folder: Path) -> list[Path]:
    """Files of a model folder and its sub-folders, at most a few thousand."""
    found: list[Path] = []
    for sub in SUBFOLDERS:
        try:
            with os.scandir(folder / sub) as entries:
                for entry in entries:
                    found.append(Path(entry.path))
                    if len(found) >= LISTED:
                        return found
        except OSError:
            continue
    return found


def finder(
    beside: Path | None,
    models_dir: str | Path | Sequence[str | Path] | None = None,
    last: Iterable[Path] = (),
) -> Finder:
    """The usual search order.

    Args:
        beside: Folder of the schedule; the working folder if None.
        models_dir: ``--models-dir``: one folder or several.
        last: Folders that the family's plugin ships.

    Raises:
        InputError: A folder of ``models_dir`` is not there. One of ``GATEKIT_MODELS`` need not be.
    """
    given = [models_dir] if isinstance(models_dir, str | Path) else list(models_dir or ())
    variable = [part for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]
    folders = [beside or Path.cwd(), *given, *variable, *last]
    unique = dict.fromkeys(home(Path(folder)).absolute() for folder in folders)
    check_folders(given)
    return Finder(tuple(unique))


def check_folders(given: Iterable[str | Path]) -> None:
    """Raise InputError where a folder of ``--models-dir`` is not there."""
    for folder in given:
        if not (there := home(Path(folder))).is_dir():
            raise InputError(
                "a file, where a folder was expected" if there.is_file() else "no such folder",
                where="--models-dir",
                value=str(folder),
                remedy="name the folder that the weight files are in, or leave it out",
            )


def missing_error(missing: Sequence[MissingFile]) -> WeightsError:
    """One error for every file that was not found."""
    first = missing[0]
    if len(missing) == 1:
        return WeightsError(
            "no such weight file", where=first.where, value=first.name, remedy=first.remedy
        )
    names = ", ".join(repr(m.name) for m in missing)
    return WeightsError(
        f"{len(missing)} weight files were not found: {names}",
        where=first.where,
        remedy=first.remedy,
    )
