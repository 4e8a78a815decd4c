"""The work folder: states and results by what they depend on, so that nothing is done twice."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gatekit
from gatekit_research.files import write_json
from gatekit_research.profile.recording import States

FORMAT = "gatekit-profile-states-1"


def digest(*content: Any) -> str:
    """A short name of plain data."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Work:
    """Files of one profile, each written whole.

    Another command that needs the same states or results finds them: more variants, prompts or
    seeds only add to what is there.

    Attributes:
        folder: Where they lie.
    """

    folder: Path

    def begin(self) -> Work:
        """Make the folder. Raises OutputError."""
        gatekit.make_folder(self.folder)
        return self

    def _states(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def has_states(self, name: str) -> bool:
        """Whether this run was made."""
        return self._states(name).is_file()

    def save_states(self, name: str, states: States) -> None:
        """Keep a run's states. Raises OutputError."""
        from safetensors.torch import save

        about = json.dumps({"sigmas": states.sigmas, "phases": states.phases})
        tensors = {"x": states.x.contiguous(), "velocity": states.velocity.contiguous()}
        data = save(tensors, metadata={"format": FORMAT, "states": about})
        gatekit.write_atomic(self._states(name), data)

    def states(self, name: str) -> States:
        """Read them back. Raises InputError for a damaged file."""
        from safetensors import SafetensorError, safe_open

        path = self._states(name)
        try:
            with safe_open(path, framework="pt") as opened:
                about = json.loads((opened.metadata() or {})["states"])
                sigmas, phases = tuple(about["sigmas"]), tuple(about["phases"])
                x, velocity = opened.get_tensor("x"), opened.get_tensor("velocity")
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as exc:
            raise gatekit.InputError(
                "damaged states", where=str(path), remedy="remove the file; it is made again"
            ) from exc
        return States(sigmas, phases, x, velocity)

    def result(self, name: str) -> dict[str, Any] | None:
        """What was measured under this name, or None."""
        try:
            return json.loads((self.folder / f"{name}.json").read_text("utf-8"))
        except (OSError, ValueError):
            return None

    def save_result(self, name: str, content: dict[str, Any]) -> None:
        """Keep what was measured. Raises OutputError."""
        write_json(self.folder / f"{name}.json", content)
