"""The run folder: what a run leaves beside its video, and what it needs to go on."""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatekit.checkpoint import Checkpoint, read_checkpoint
from gatekit.checkwriter import CheckpointWriter
from gatekit.errors import InputError, OutputError
from gatekit.jsontext import json_text, read_json
from gatekit.latent import latent_bytes
from gatekit.output import make_folder, write_atomic
from gatekit.runlock import RunLock
from gatekit.sameness import differences, mark

if TYPE_CHECKING:
    from torch import Tensor

    from gatekit.family import Inputs
    from gatekit.plan import Plan
    from gatekit.state import Record, State
    from gatekit.target import Target

log = logging.getLogger("gatekit")
RECORD, LATENT, CHECKPOINT, LOG = (
    "run.json",
    "latent.safetensors",
    "checkpoint.safetensors",
    "error.log",
)
EVERY = 5.0  # seconds between updates of run.json
INSIST = "leave out what changed, or start anew without --resume; --force goes on all the same"


@dataclass
class RunFolder:
    """``OUT.run/``: run.json, the latent, and a checkpoint while the run lasts."""

    path: Path
    content: dict[str, Any] = field(default_factory=dict[str, Any])
    records: list[Record] = field(default_factory=list[Any])
    earlier: Checkpoint | None = None
    _writer: CheckpointWriter | None = None
    _lock: RunLock | None = None
    _unsavable: bool = False
    _noted: float = 0.0

    @property
    def checkpoint_file(self) -> Path:
        """Where the checkpoint is."""
        return self.path / CHECKPOINT

    def begin(
        self,
        plan: Plan,
        inputs: Inputs,
        out: Target | None,
        earlier: RunFolder | None = None,
        *,
        force: bool = False,
    ) -> State | None:
        """Note what is about to run, before anything is computed; ``close`` must follow.

        Returns:
            The state that ``earlier`` stopped in; None for a run from the start.

        Raises:
            InputError: ``earlier``, which is to be resumed, was another run (and not ``force``), or
                has no checkpoint; or another run is writing into this folder.
            OutputError: The folder cannot be written.
        """
        now = mark(plan, inputs)
        beside = out is not None and self.path == out.run_dir
        make_folder(self.path, None if beside else "choose another folder with --run-dir")
        self._lock = RunLock(self.path)
        self._lock.take(self.path / RECORD)
        state = self._restored(earlier, plan, now, force) if earlier is not None else None
        sweep(self.path, "")
        if out is not None:
            sweep(out.path.absolute().parent, out.path.name)
        self.content = {
            "status": "running",
            "process": os.getpid(),
            "out": str(out.absolute()) if out else None,
            "folder": str(plan.schedule.folder) if plan.schedule.folder else None,
            "seed": inputs.seed,
            "sigmas": list(plan.run_sigmas),
            "phases": plan.to_json()["phases"],
            "warnings": list(plan.warnings),
            "steps": [asdict(record) for record in self.records],
            **now,
        }
        self._write()
        self._noted = time.monotonic()
        if state is None:  # of another run; after run.json, which tells so
            with contextlib.suppress(OSError):
                self.checkpoint_file.unlink(missing_ok=True)
        self._writer = CheckpointWriter(self.checkpoint_file, now, self._note)
        return state

    def _restored(self, earlier: RunFolder, plan: Plan, now: dict[str, Any], force: bool) -> State:
        """The state an earlier run stopped in; its records become the first of this one."""
        if earlier.content.get("status") == "done":
            raise InputError(
                "this run has ended; there is nothing to go on with",
                where=str(earlier.path),
                remedy="run its video or its schedule again to make another",
            )
        changed = differences(earlier.content, now)
        if changed and not force:
            raise refusal(earlier.path, changed)
        found = read_checkpoint(earlier.checkpoint_file)
        of_itself = differences(found.mark, now)
        if of_itself and not force:
            raise refusal(earlier.checkpoint_file, of_itself)
        for what, first in (changed | of_itself).items():
            log.warning("going on with a run that had %s: %s", what, first)
        state, shape = found.state(plan.device), (1, *plan.family.latent_shape(plan.video))
        if tuple(state.x.shape) != shape:
            raise InputError(
                "the checkpoint is of another size of video",
                where=str(earlier.checkpoint_file),
                value=list(state.x.shape),
                remedy=f"a latent of {list(shape)} is wanted; start anew without --resume",
            )
        phase = plan.phases[min(state.phase, len(plan.phases) - 1)]
        if not phase.sampler.resumable and state.sigma > phase.sigmas[-1]:
            log.warning(
                "phase %s begins anew: sampler %s owns its loop, and goes on from the start of a "
                "phase alone",
                *(phase.name, phase.sampler.name),
            )
        self.earlier, self.records = found, list(found.records)
        return state

    def encoded(self, conditioning: str) -> None:
        """Note the hash of the encoded inputs; warn where they are other than before."""
        if self._writer is not None:
            self._writer.conditioning = conditioning
        if self.earlier is not None and self.earlier.conditioning not in ("", conditioning):
            log.warning(
                "prompt and images give other numbers than in the first part of this run; the "
                "result will be none that one run would give"
            )

    def checkpoint(self, state: State, record: Record) -> None:
        """Have a state written, soon and without waiting."""
        self.records.append(record)
        if self._writer is None or self._unsavable:
            return
        try:
            self._writer.submit(state, tuple(self.records))
        except OutputError as error:
            self._unsavable = True
            log.warning("this run cannot be resumed: %s", error)

    def stop(self) -> None:
        """The run stops early: write the latest state, and note how the run stands.

        Raises:
            OutputError: One of them could not be written.
        """
        try:
            if self._writer is not None:
                self._writer.drain()
        finally:
            self.content["steps"] = [asdict(record) for record in self.records]
            self.content["status"] = "stopped"
            self._write()

    def close(self) -> None:
        """Stop writing and let others use the folder; idempotent."""
        if self._writer is not None:
            self._writer.close()
        if self._lock is not None:
            self._lock.release()

    def _note(self, records: tuple[Record, ...]) -> None:
        """Let run.json tell of the steps so far, for reports of a run that is going on."""
        if time.monotonic() - self._noted >= EVERY:
            self.content["steps"] = [asdict(record) for record in records]
            self._write()
            self._noted = time.monotonic()

    def save_latent(self, latent: Tensor) -> Path:
        """Write ``latent.safetensors``: ``latent`` float32 ``[C, T, H, W]``."""
        return write_atomic(self.path / LATENT, latent_bytes(latent))

    def finish(self, **facts: Any) -> None:
        """Note what came of it, and take the checkpoint away."""
        steps = [asdict(record) for record in self.records]
        nfe = sum(record.nfe for record in self.records)
        if self._writer is not None:
            self._writer.close()
            facts["checkpoints"] = dict(self._writer.facts)
        self.content |= {"status": "done", "nfe": nfe, "steps": steps, **facts}
        self._write(f"free space there; what was made is kept, the latent as {self.path / LATENT}")
        with contextlib.suppress(OSError):
            self.checkpoint_file.unlink(missing_ok=True)

    def _write(self, remedy: str | None = None) -> None:
        text = json_text(self.content, indent=1) + "\n"
        write_atomic(self.path / RECORD, text.encode(), remedy)

    def log(self, text: str) -> Path | None:
        """Keep a traceback; where it went, or None."""
        try:
            return write_atomic(self.path / LOG, text.encode()) if self.path.is_dir() else None
        except OutputError:
            return None


def refusal(where: Path, changed: dict[str, str]) -> InputError:
    """The error for a checkpoint of another run: what differs, with both values."""
    what = " and ".join(changed)
    return InputError(
        f"the run to resume had {what}: {'; '.join(changed.values())}",
        where=str(where),
        remedy=INSIST,
    )


def sweep(folder: Path, name: str) -> None:
    """Put right what a killed run left under hidden names; the run folder's lock is held."""
    hidden = f".{glob.escape(name)}.[0-9]*" if name else ".*"  # "out/" leaves out.mp4's alone
    with contextlib.suppress(OSError):
        for left in folder.glob(f"{hidden}.part"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        for old in folder.glob(f"{hidden}.old") if name else ():
            if (folder / name).exists():
                shutil.rmtree(old)
            else:  # killed between two renames: the earlier frames are still wanted
                old.rename(folder / name)


def interrupted(path: Path, plan: Plan, inputs: Inputs) -> tuple[Checkpoint | None, str | None]:
    """What a run in this folder would find there.

    Returns:
        The checkpoint of the same run, which it can go on with; and where an unfinished run was
        another one, what differs.
    """
    try:
        earlier = open_run_folder(path)
        if earlier.content.get("status") == "done":
            return None, None
        found = read_checkpoint(earlier.checkpoint_file)
    except InputError:
        return None, None
    changed = differences(found.mark, mark(plan, inputs))
    if changed:
        return None, "; ".join(changed.values())
    return found, None


def open_run_folder(path: str | Path) -> RunFolder:
    """An earlier run's folder.

    Raises:
        InputError: No run folder.
    """
    folder = Path(path)
    try:
        content = read_json(folder / RECORD, most=None)
        if not {"fingerprint", "schedule", "inputs"} <= set(content):
            raise KeyError(RECORD)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise InputError(
            "no run folder",
            where=str(folder),
            remedy=f"name the folder that holds {RECORD}, such as out.run",
        ) from exc
    return RunFolder(folder, content)
