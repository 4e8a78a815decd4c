"""The folder of a sweep: results.jsonl, a line a cell; latents and videos beside it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import gatekit

RESULTS, ABOUT = "results.jsonl", "sweep.json"
LATENTS, VIDEOS, TRACES = "latents", "videos", "traces"
ARM = {"name", "cells", "compared"}  # what an arm's entry in sweep.json has at the least
Line = dict[str, Any]


class Store:
    """What a sweep has found so far.

    A line is written in one piece and synchronised; one that a power cut tore is taken off before
    the next is added. A later line of a cell replaces an earlier one.

    Args:
        folder: Of the sweep.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, kind: str, digest: str) -> Path:
        """A cell's latent, video or trace."""
        return self.folder / kind / f"{digest}{'.mp4' if kind == VIDEOS else '.safetensors'}"

    def begin(self, about: Mapping[str, Any]) -> None:
        """Make the folders, mend a torn line, write ``sweep.json``.

        Only where the folder is ``locked``: the torn line of a running sweep is one that it writes.

        Raises:
            OutputError: One of them cannot be written.
        """
        for kind in (LATENTS, VIDEOS, TRACES):
            gatekit.make_folder(self.folder / kind)
        results = self.folder / RESULTS
        data = results.read_bytes() if results.exists() else b""
        if data and not data.endswith(b"\n"):
            gatekit.write_atomic(results, data[: data.rfind(b"\n") + 1])
        text = json.dumps(about, indent=1, ensure_ascii=False) + "\n"
        gatekit.write_atomic(self.folder / ABOUT, text.encode())

    @contextlib.contextmanager
    def locked(self) -> Generator[None]:
        """Make the folder and keep a second sweep out of it.

        Raises:
            InputError: One is there.
            OutputError: It cannot be made.
        """
        gatekit.make_folder(self.folder)
        try:
            import fcntl
        except ImportError:  # no such locks on this platform
            yield
            return
        with (self.folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as exc:
                raise gatekit.InputError(
                    "another sweep is writing to this folder",
                    where=str(self.folder),
                    remedy="wait for it, or choose another folder with -o",
                ) from exc
            yield

    def read(self) -> dict[str, Line]:
        """Digest -> its last line."""
        lines: dict[str, Line] = {}
        with contextlib.suppress(FileNotFoundError):
            for text in (self.folder / RESULTS).read_text("utf-8").splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):  # no line of ours
                    line = json.loads(text)
                    lines[line["cell"]] = line
        return lines

    def append(self, *lines: Line) -> None:
        """Add lines, in one piece. Raises OutputError."""
        texts = [json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines]
        data = "".join(texts).encode()
        try:
            place = os.open(self.folder / RESULTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                while data:  # a disk that fills takes a part, and only then refuses
                    data = data[os.write(place, data) :]
                os.fsync(place)
            finally:
                os.close(place)
        except OSError as exc:
            raise gatekit.OutputError(
                f"cannot write: {exc.strerror}",
                where=str(self.folder / RESULTS),
                remedy="free space there; the sweep goes on where it stopped",
            ) from exc


def read_about(folder: Path) -> dict[str, Any]:
    """``sweep.json`` of a folder.

    Raises:
        InputError: No folder of a sweep.
    """
    try:
        about = gatekit.read_json(folder / ABOUT, most=None)
        if not about["arms"] or any(not set(arm) >= ARM for arm in about["arms"]):
            raise KeyError("arms")
        return dict(about)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise gatekit.InputError(
            "no folder of a sweep", where=str(folder), remedy=f"name one that holds {ABOUT}"
        ) from exc
