"""Where the bytes of a part go on a device, and what becomes of them there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatekit import Piece

from .putting import dtype_of, rounded

if TYPE_CHECKING:
    from torch import Tensor

    from .units import Part


def aim(
    piece: Piece, part: Part, memory: Tensor, staging: Tensor | None, scale: Tensor | None
) -> None:
    """Have a piece end up as its part's form is.

    Args:
        piece: The bytes of the file, on their way.
        part: What they are.
        memory: uint8, which the part is in.
        staging: uint8, where bytes are that are not kept as they are.
        scale: What the stored weights are multiplied by: ``[1]``, ``[rows]`` or None.
    """
    import torch

    from .dequantise import dequantise
    from .fp8 import round_into

    place = memory[part.offset : part.offset + part.nbytes]
    raw = None
    if part.through_staging:
        assert staging is not None
        raw = piece.into = staging[: part.info.nbytes]
    if part.form == "rounded":
        q, scales = rounded(part, memory)
        if raw is None:
            raw = piece.into = q.view(-1).view(torch.uint8)
        given = raw
        piece.then = lambda: round_into(given, part.info, scale, q, scales)
    elif raw is not None:
        given, dtype = raw, dtype_of(part.dtype)
        out, kind = place.view(dtype), part.info.type
        piece.then = lambda: dequantise(given, kind, dtype, scale, out=out)
    else:
        piece.into = place
