"""What a study is made from: a file of prompts, and seeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gatekit

PROMPTS = (
    "A red fox trots through fresh snow at dawn, the camera follows at its side.",
    "Two people in yellow raincoats cross a busy street in the rain at night, neon reflections.",
    "Close-up of hands kneading dough on a floured wooden table, soft window light.",
    "A sailing boat turns into the wind off a rocky coast, waves break over its bow.",
)


@dataclass(frozen=True)
class Prompt:
    """One line of a file of prompts: a text, and an image where the model takes one."""

    text: str
    image: Path | None = None

    def inputs(self, seed: int, image: Path | None = None) -> gatekit.Inputs:
        """Inputs of a run; ``image`` is used where the line names none."""
        return gatekit.Inputs(prompt=self.text, image=self.image or image, seed=seed)


def read_prompts(file: Path | None) -> tuple[Prompt, ...]:
    """One prompt a line, a tab and the path of an image behind it if need be; ``#`` comments.

    Args:
        file: UTF-8 text; None gives four general prompts.

    Raises:
        InputError: No such file, no text, or no prompt in it.
    """
    if file is None:
        return tuple(Prompt(text) for text in PROMPTS)
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise gatekit.InputError(
            "no readable file of prompts",
            where="--prompts",
            value=str(file),
            remedy="give a UTF-8 text with a prompt a line",
        ) from exc
    found: list[Prompt] = []
    for line in lines:
        text, _, image = line.partition("\t")
        if text.strip() and not text.lstrip().startswith("#"):
            place = file.parent / image.strip() if image.strip() else None
            found.append(Prompt(text.strip(), place))
    if not found:
        raise gatekit.InputError(
            "no prompt in this file",
            where="--prompts",
            value=str(file),
            remedy="write one a line; lines that begin with # do not count",
        )
    return tuple(found)
