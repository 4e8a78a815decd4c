"""The run folder: what a run leaves beside its video, and what it needs to go on."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatekit.errors import InputError, OutputError
from gatekit.latent import latent_bytes
from gatekit.output import make_folder, write_atomic
from gatekit.provenance import fingerprint, first_difference, inputs_record, versions

if TYPE_CHECKING:
    from torch import Tensor

    from gatekit.family import Inputs
    from gatekit.plan import Plan
    from gatekit.state import Record, State
    from gatekit.target import Target

RECORD, LATENT, CHECKPOINT, LOG = (
    "run.json",
    "latent.safetensors",
    "checkpoint.safetensors",
    "error.log",
)
EVERY, SHARE = 5.0, 0.05  # seconds between checkpoints; the most of a run that they take


@dataclass
class RunFolder:
    """``OUT.run/``: run.json, the latent, and a checkpoint while the run lasts.

    A checkpoint is written every few seconds, less often where writing one takes long, and in any
    case when the run stops early.
    """

    path: Path
    content: dict[str, Any] = field(default_factory=dict[str, Any])
    records: list[Record] = field(default_factory=list[Any])
    _latest: State | None = None
    _written: float = 0.0
    _pause: float = EVERY

    @property
    def checkpoint_file(self) -> Path:
        """Where the checkpoint is."""
        return self.path / CHECKPOINT

    def begin(
        self, plan: Plan, inputs: Inputs, out: Target | None, earlier: RunFolder | None = None
    ) -> State | None:
        """Note what is about to run, before anything is computed.

        Returns:
            The state that ``earlier`` stopped in; None for a run from the start.

        Raises:
            InputError: ``earlier``, which is to be resumed, was another run, or has no checkpoint.
            OutputError: The folder cannot be written.
        """
        mark = fingerprint(plan, inputs)
        if earlier is not None and earlier.content.get("fingerprint") != mark:
            before = {k: earlier.content.get(k) for k in ("schedule", "inputs")}
            now = {"schedule": plan.resolved(), "inputs": inputs_record(inputs)}
            changed = first_difference(before, now) or "a weight file is not the same"
            raise InputError(
                f"the run to resume had another schedule, prompt, seed or weights: {changed}",
                where=str(earlier.path),
                remedy="leave out what changed, or start anew without --resume",
            )
        state = self._restored(earlier, plan.device) if earlier is not None else None
        beside = out is not None and self.path == out.run_dir
        make_folder(self.path, None if beside else "choose another folder with --run-dir")
        self.content = {
            "status": "running",
            "out": str(out.absolute()) if out else None,
            "fingerprint": mark,
            "schedule": plan.resolved(),
            "folder": str(plan.schedule.folder) if plan.schedule.folder else None,
            "inputs": inputs_record(inputs),
            "seed": inputs.seed,
            "device": plan.device,
            "sigmas": list(plan.run_sigmas),
            "phases": plan.to_json()["phases"],
            "warnings": list(plan.warnings),
            "versions": versions(),
            "steps": [asdict(record) for record in self.records],
        }
        self._write()
        self._written = time.monotonic()
        return state

    def _restored(self, earlier: RunFolder, device: str) -> State:
        """The state an earlier run stopped in; its records become the first of this one."""
        from gatekit.state import Record, State

        if earlier.content.get("status") == "done":
            raise InputError(
                "this run has ended; there is nothing to go on with",
                where=str(earlier.path),
                remedy="run its video or its schedule again to make another",
            )
        state = State.load(earlier.checkpoint_file, device)
        done = [Record(**entry) for entry in earlier.content.get("steps", [])]
        self.records = [record for record in done if record.step < state.step]
        return state

    def checkpoint(self, state: State, record: Record) -> None:
        """Remember a state; write it if the last one written is old."""
        self._latest = state
        self.records.append(record)
        if time.monotonic() - self._written >= self._pause:
            self.flush()

    def flush(self, status: str = "running") -> None:
        """Write the latest state, if there is one, and note how the run stands."""
        began = time.monotonic()
        if self._latest is not None:
            self._latest.save(self.checkpoint_file)
            self.content["steps"] = [asdict(record) for record in self.records]
        self.content["status"] = status
        self._write()
        self._written = time.monotonic()
        self._pause = max(EVERY, (self._written - began) / SHARE)

    def save_latent(self, latent: Tensor) -> Path:
        """Write ``latent.safetensors``: ``latent`` float32 ``[C, T, H, W]``."""
        return write_atomic(self.path / LATENT, latent_bytes(latent))

    def finish(self, **facts: Any) -> None:
        """Note what came of it, and take the checkpoint away."""
        steps = [asdict(record) for record in self.records]
        nfe = sum(record.nfe for record in self.records)
        self.content |= {"status": "done", "nfe": nfe, "steps": steps, **facts}
        self._write()
        with contextlib.suppress(OSError):
            self.checkpoint_file.unlink(missing_ok=True)

    def _write(self) -> None:
        text = json.dumps(self.content, indent=1, ensure_ascii=False) + "\n"
        write_atomic(self.path / RECORD, text.encode())

    def log(self, text: str) -> Path | None:
        """Keep a traceback; where it went, or None."""
        try:
            return write_atomic(self.path / LOG, text.encode()) if self.path.is_dir() else None
        except OutputError:
            return None


def open_run_folder(path: str | Path) -> RunFolder:
    """An earlier run's folder.

    Raises:
        InputError: No run folder.
    """
    folder = Path(path)
    try:
        content = json.loads((folder / RECORD).read_text("utf-8"))
        if not {"fingerprint", "schedule", "inputs"} <= set(content):
            raise KeyError(RECORD)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise InputError(
            "no run folder",
            where=str(folder),
            remedy=f"name the folder that holds {RECORD}, such as out.run",
        ) from exc
    return RunFolder(folder, content)
