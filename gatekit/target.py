"""What a result is written as: told from the name that ``-o`` gives."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gatekit.embed import import_av, import_pillow
from gatekit.errors import InputError
from gatekit.output import cannot_write, check_parent, make_folder, write_atomic, write_synced

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["mp4", "webp", "png", "frames", "latent"]
SUFFIXES: dict[str, Kind] = {
    ".mp4": "mp4",
    ".webp": "webp",
    ".png": "png",
    ".safetensors": "latent",
}
FRAME = re.compile(r"\d{4,}\.png")


@dataclass(frozen=True)
class Target:
    """A file, or a folder of frames, to be written.

    Attributes:
        path: ``out.mp4``, ``out.webp``, ``out.png``, ``out.safetensors``, or the folder.
        kind: ``png`` is one picture, or ``out-0001.png``, ``out-0002.png``, ... of a video.
    """

    path: Path
    kind: Kind

    def __str__(self) -> str:
        return f"{self.path}/" if self.kind == "frames" else str(self.path)

    @classmethod
    def of(cls, out: str | Path | Target) -> Target:
        """What a name asks for: by its suffix; a trailing slash, or a folder, asks for frames.

        Raises:
            InputError: A suffix that says nothing, or a folder that must not be replaced.
        """
        if isinstance(out, Target):
            return out
        path, text = Path(out), str(out)
        kind = SUFFIXES.get(path.suffix.lower())
        slash = text.endswith(("/", os.sep))
        if kind is not None and not slash:
            if path.is_dir():
                raise InputError(
                    "this is a folder", where=str(path), remedy="name a file in it, or end in '/'"
                )
            return cls(path, kind)
        if slash or path.is_dir():
            if path.name in ("", ".."):  # no folder that could be replaced, or have a neighbour
                raise _no_place(text)
            return cls(path, "frames")
        stem = path.stem or "out"
        raise InputError(
            "a result is .mp4, .webp, .png or .safetensors (the latent), or a folder of frames",
            where=text,
            remedy=f"use {stem}.mp4, or {stem}/ for frames",
        )

    def check(self, frames: int) -> Target:
        """Itself, if a result of so many frames can be written so; before anything is computed.

        Raises:
            InputError: What writes it is missing, or other files are in its way.
        """
        if self.kind == "mp4":
            import_av()
        elif self.kind != "latent":
            import_pillow()
        if self.kind == "frames":
            if self.path.is_file():
                raise _no_place(str(self))
            other = self._other_than_frames()
            if other is not None:
                raise InputError(
                    "this folder holds other things than frames, and would be replaced",
                    where=str(self),
                    value=other,
                    remedy="name a new folder in it",
                )
        if self.kind == "png" and frames > 1:
            left = self._numbered(frames + 1)
            if left.exists():
                raise InputError(
                    f"frames of a longer video are there, beside which {frames} would lie",
                    where=str(left),
                    remedy="remove them, or choose another name",
                )
        return self

    def check_place(self) -> Target:
        """Itself, if its folder is there: a misspelt one is told before anything is computed.

        Raises:
            InputError: It is not.
        """
        check_parent(self.path)
        return self

    def _other_than_frames(self) -> str | None:
        if not self.path.is_dir():
            return None
        names = sorted(entry.name for entry in self.path.iterdir())
        return next((name for name in names if not FRAME.fullmatch(name)), None)

    def _numbered(self, number: int) -> Path:
        return self.path.with_stem(f"{self.path.stem}-{number:04d}")

    @property
    def run_dir(self) -> Path:
        """The run folder beside it."""
        if self.kind == "frames":
            return self.path.with_name(f"{self.path.name}.run")
        return self.path.with_suffix(".run")

    def first(self, frames: int) -> str:
        """What is there to name once it is written: of numbered pictures the first."""
        return str(self._numbered(1)) if self.kind == "png" and frames > 1 else str(self)

    def absolute(self) -> Target:
        """Wherever the working folder is."""
        return Target(self.path.absolute(), self.kind)

    def write(self, video: Tensor, fps: float, comment: str, remedy: str | None = None) -> Path:
        """Write a video ``[frames, height, width, 3]`` in [0, 1]: whole, or not at all.

        Returns:
            The file or the folder; of numbered pictures the first.

        Raises:
            InputError: A size that the format has not.
            OutputError: It could not be written; what was there before stays.
        """
        from gatekit.mp4 import encode_mp4
        from gatekit.pictures import encode_png, encode_webp

        make_folder(self.path.absolute().parent)
        if self.kind == "mp4":
            return write_atomic(self.path, encode_mp4(video, fps, comment), remedy)
        if self.kind == "webp":
            return write_atomic(self.path, encode_webp(video, fps, comment), remedy)
        if self.kind == "png" and len(video) == 1:
            return write_atomic(self.path, encode_png(video[0], comment), remedy)
        makers = [lambda frame=frame: encode_png(frame, comment) for frame in video]
        if self.kind == "frames":
            return self._write_folder(makers, remedy)
        return self._write_numbered(makers, remedy)

    def _write_folder(self, makers: Sequence[Callable[[], bytes]], remedy: str | None) -> Path:
        path = self.path.resolve()  # through a link, to the disk that is meant
        old = path.with_name(f".{path.name}.{os.getpid()}.old")
        with _beside(path, makers, remedy) as made:
            other = self._other_than_frames()
            if other is not None:  # put there while the video was computed
                raise OSError(errno.ENOTEMPTY, f"the folder now holds {other}")
            if path.exists():
                path.rename(old)
            try:
                made.rename(path)
            except OSError:
                if old.exists():
                    old.rename(path)
                raise
        shutil.rmtree(old, ignore_errors=True)
        return self.path

    def _write_numbered(self, makers: Sequence[Callable[[], bytes]], remedy: str | None) -> Path:
        with _beside(self.path.absolute(), makers, remedy) as made:
            for number in range(1, len(makers) + 1):
                (made / f"{number:04d}.png").replace(self._numbered(number))
            made.rmdir()
        return self._numbered(1)


def _no_place(where: str) -> InputError:
    return InputError("no place for a folder of frames", where=where, remedy="name a new folder")


@contextlib.contextmanager
def _beside(
    path: Path, makers: Sequence[Callable[[], bytes]], remedy: str | None
) -> Generator[Path]:
    """A hidden folder beside ``path`` with every frame; gone again where something fails."""
    folder = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for number, make in enumerate(makers, 1):
            write_synced(folder / f"{number:04d}.png", make())
        yield folder
    except OSError as exc:
        raise cannot_write(path, exc, remedy) from exc
    finally:
        shutil.rmtree(folder, ignore_errors=True)
