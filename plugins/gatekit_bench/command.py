"""``gatekit bench``: figures of this machine, each beside its bound and diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import gatekit


def bench(
    size: Annotated[
        str, typer.Option("--size", help="Size of the model: a14b, ti2v5b, wan1.3b, tinywan.")
    ] = "a14b",
    tokens: Annotated[
        list[int] | None,
        typer.Option(
            "--tokens",
            min=1,
            help="Tokens of a video; several times; default: 32760 4590 510, of tinywan 510 252.",
        ),
    ] = None,
    variants: Annotated[
        list[str] | None,
        typer.Option(
            "--variants", help="GGUF types and fp8; several times; default: Q2_K Q5_K fp8."
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=1.0, help="After how long no part begins any more.")
    ] = 300.0,
    parts: Annotated[
        list[str] | None,
        typer.Option(
            "--part",
            help="Only parts that begin so; several times; default: all; most need rates.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all figures here, too.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--files",
            metavar="DIR",
            help="For weight files; default: where temporary files go.",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="DEVICE",
            help="cpu, cuda, cuda:1, ...; default: a GPU where torch has one.",
        ),
    ] = None,
) -> None:
    """Measure this machine with random weights: decoding, passes, a gated run, loading, memory.

    The exit code is 1 where a part failed; the others are measured all the same.
    """
    from gatekit_bench.session import Asked, session
    from gatekit_bench.sizes import SMALL_TOKENS

    asked = Asked(
        size,
        tokens or SMALL_TOKENS.get(size, Asked.tokens),
        variants or Asked.variants,
        seconds,
        parts or (),
        out,
        folder,
        device,
    )
    if failed := session(asked):
        raise gatekit.GatekitError(
            f"parts that failed: {', '.join(failed)}",
            remedy="--json FILE keeps their tracebacks; --part rates --part NAME runs one of them",
        )
