"""``gatekit decode``: a video from a saved latent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gatekit.cli.options import DeviceOption, ModelsDirOption


def decode(
    latent: Annotated[
        Path, typer.Argument(metavar="LATENT", help="OUT.run/latent.safetensors, or such a file.")
    ],
    out: Annotated[
        str,
        typer.Option(
            "-o", "--out", metavar="OUT", help="OUT.mp4, OUT.webp, OUT.png or OUT/ (frames)."
        ),
    ],
    schedule: Annotated[
        Path | None,
        typer.Option(
            "--schedule", metavar="FILE", help="Schedule; default: in LATENT, or in its run.json."
        ),
    ] = None,
    vae: Annotated[
        Path | None, typer.Option("--vae", metavar="FILE", help="VAE, in place of the schedule's.")
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option("--fps", min=0.1, max=1000, help="Frames a second; default: the schedule's."),
    ] = None,
    models_dir: ModelsDirOption = None,
    device: DeviceOption = None,
) -> None:
    """Decode a saved latent."""
    from gatekit.decoding import decode as decoded

    written = decoded(
        latent, out, schedule=schedule, vae=vae, fps=fps, models_dir=models_dir, device=device
    )
    print(f"{written}/" if written.is_dir() else written)
