"""The checkpoint file: a state, and the run that it belongs to, in one safetensors file.

Both are in one file because two could not be replaced at once: a kill in between would leave a
state beside the record of another step, or of another run.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gatekit.errors import InputError
from gatekit.packing import MALFORMED
from gatekit.sealing import check_texts
from gatekit.state import Record, State

if TYPE_CHECKING:
    from gatekit.state import Packed

KEY = "run"
ANEW = "start the run anew"


@dataclass(frozen=True)
class Checkpoint:
    """What is known of a checkpoint without its tensors.

    Attributes:
        path: The file.
        step: Intervals that the state is past.
        mark: What decides the bits of its run (``sameness.mark``).
        records: Of the intervals before ``step``.
        conditioning: Hash of the encoded inputs.
    """

    path: Path
    step: int
    mark: dict[str, Any]
    records: tuple[Record, ...]
    conditioning: str = ""

    def state(self, device: str) -> State:
        """The state. Raises InputError where the file cannot be read, or was replaced meanwhile."""
        state = State.load(self.path, device)
        if state.step != self.step:
            raise InputError(
                f"the checkpoint was replaced while it was read: step {self.step} became "
                f"{state.step}",
                where=str(self.path),
                remedy="let the run that writes there end first",
            )
        return state


def checkpoint_bytes(
    packed: Packed, step: int, mark: dict[str, Any], records: tuple[Record, ...], conditioning: str
) -> bytes:
    """A checkpoint file; records of intervals that the state is not past are left out."""
    about = {
        "step": step,
        "mark": mark,
        "records": [asdict(record) for record in records if record.step < step],
        "conditioning": conditioning,
    }
    return packed.serialised(**{KEY: json.dumps(about)})


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint's header; its tensors stay in the file.

    Raises:
        InputError: No such file, a damaged one, or one of another kind.
    """
    import safetensors

    safe_open: Any = safetensors.safe_open  # pyright: ignore[reportUnknownMemberType]
    if not path.is_file():
        raise InputError(
            "no readable checkpoint: no step was finished", where=str(path), remedy=ANEW
        )
    try:
        with safe_open(path, framework="np") as opened:
            metadata = cast("dict[str, str]", opened.metadata() or {})
        check_texts(metadata)
        about = json.loads(metadata[KEY])
        records = tuple(Record(**record) for record in about["records"])
        return Checkpoint(
            path, int(about["step"]), dict(about["mark"]), records, str(about["conditioning"])
        )
    except (OSError, safetensors.SafetensorError, *MALFORMED) as error:
        raise InputError(
            f"no readable checkpoint: {error}", where=str(path), remedy=ANEW
        ) from error
