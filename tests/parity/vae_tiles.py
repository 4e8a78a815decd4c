"""What tiles of a VAE cost: error at seams, computation done twice, and memory.

    python tests/parity/vae_tiles.py seams       # some minutes on a CPU
    python tests/parity/vae_tiles.py memory

Prints one line of JSON a case, with random weights of the real structure. ``seams`` compares a
clip coded in tiles with the same clip coded whole, for gatekit's tiles and for those of
diffusers' ``enable_tiling``. ``memory`` measures the peak of one tile at a part of the real
width, beside what ``vae_tiles.tile_bytes`` expects, and adds up 1280x720x81 at the real width
from what it expects (``sums`` prints that alone). Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gatekit_wan22 import vae_stream, vae_tiles
from gatekit_wan22.sizes_parts import VAESizes
from gatekit_wan22.vae import empty_vae
from gatekit_wan22.vae_tiles import Grid, grid, spans

REAL = {
    "2.1": VAESizes(96, 96, 16, (1, 2, 4, 4), 2, (False, True, True)),
    "2.2": VAESizes(160, 256, 48, (1, 2, 4, 4), 2, (False, True, True), True, 2),
}
GIB = 1 << 30


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["seams", "memory", "sums", "one-tile"])
    parser.add_argument("case", nargs="*", help="of one-tile, which 'memory' runs by itself")
    args = parser.parse_args()
    torch.manual_seed(0)
    with torch.no_grad():
        {"seams": seams, "memory": memory, "sums": sums, "one-tile": one_tile}[args.what](
            *args.case
        )


def part(kind: str, divisor: int) -> VAESizes:
    """The real VAE at a part of its width."""
    full = REAL[kind]
    return replace(
        full,
        base_dim=full.base_dim // divisor,
        decoder_base_dim=full.decoder_base_dim // divisor,
    )


def random_vae(sizes: VAESizes, dtype: torch.dtype = torch.float32) -> Any:
    """diffusers' VAE with weights that keep the scale of what passes through."""
    model = empty_vae(sizes).to(dtype).to_empty(device="cpu")
    for name, p in model.named_parameters():
        scale = 0.1 if p.ndim == 1 or "gamma" in name else p[0].numel() ** -0.5
        torch.nn.init.normal_(p, std=scale)
        if "gamma" in name:
            p.add_(1.0)
    return model


def smooth(*shape: int) -> Tensor:
    """A field of low frequencies, of deviation 1."""
    rough = torch.randn(*shape[:2], 3, 4, 5)
    field = torch.nn.functional.interpolate(rough, size=shape[2:], mode="trilinear")
    return field / field.std()


def report(**values: Any) -> None:
    """One line of JSON."""
    print(json.dumps(values), flush=True)


def apart(a: Tensor, b: Tensor) -> dict[str, float]:
    """Largest and root mean square difference."""
    d = (a - b).double()
    return {"max": float(f"{d.abs().max():.2e}"), "rms": float(f"{d.pow(2).mean().sqrt():.2e}")}


def seams() -> None:
    """Tiled against whole, both ways, on noise and on smooth inputs."""
    for kind, cell in (("2.1", 8), ("2.2", 16)):
        sizes = part(kind, 12 if kind == "2.1" else 20)
        model = random_vae(sizes)
        height, width, tile = (384, 512, 256) if kind == "2.1" else (288, 416, 272)
        h, w = height // cell, width // cell
        for name, make in (("noise", torch.randn), ("smooth", smooth)):
            z, video = make(1, sizes.z_dim, 2, h, w), make(1, 3, 5, height, width).clamp(-1, 1)
            whole = Grid(spans(h, 1, 0), spans(w, 1, 0))
            decoded = vae_stream.decode(model, sizes, z, whole)
            encoded = vae_stream.encode(model, sizes, video, whole)
            d, e = (grid(h, w, sizes, 4, tile, decoding=way) for way in (True, False))
            model.use_tiling = False
            raw, latent = model.decode(z).sample, model.encode(video).latent_dist.mode()
            model.enable_tiling()
            means = model.encode(video).latent_dist.mode()
            decoded_in_tiles = vae_stream.decode(model, sizes, z, d)
            encoded_in_tiles = vae_stream.encode(model, sizes, video, e)
            for by, tiles, what, error in (
                ("gatekit", len(d), "decode", apart(decoded_in_tiles, decoded)),
                ("gatekit", len(e), "encode", apart(encoded_in_tiles, encoded)),
                ("diffusers", None, "decode", apart(model.decode(z).sample, raw)),
                ("diffusers", None, "encode", apart(means, latent)),
            ):  # fmt: skip
                report(vae=kind, input=name, by=by, tiles=tiles, what=what, **error)


def memory() -> None:
    """The peak of one tile in a process of its own, and the sum for 1280x720x81."""
    for kind, divisor in (("2.1", 2), ("2.2", 4)):
        for way in ("decode", "encode"):
            for rows, columns in ((16, 24), (24, 32)):
                case = (kind, str(divisor), way, str(rows), str(columns))
                command = [sys.executable, __file__, "one-tile", *case]
                # Without this, freed blocks of middling size stay with the process.
                subprocess.run(
                    command, check=True, env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
                )
    sums()


def sums() -> None:
    """What 1280x720x81 takes at the real width, tile by ``tile_bytes``."""
    for kind, sizes in REAL.items():
        model = empty_vae(sizes)
        cells = 720 * 1280 // sizes.spatial_stride**2
        for item, precision in ((4, "fp32"), (2, "bf16")):
            tiles = grid(
                720 // sizes.spatial_stride, 1280 // sizes.spatial_stride, sizes, item, "auto",
                decoding=True,
            )  # fmt: skip
            sides = [[s.high - s.low for s in axis] for axis in (tiles.rows, tiles.columns)]
            parts = {
                "weights": item * sum(p.numel() for p in model.parameters()),
                "coarse": item * 21 * cells * (1 + sizes.residual)
                * sizes.decoder_base_dim * sizes.dim_mult[-1],
                "video": 4 * 3 * 81 * 720 * 1280,
                "tile": max(sides[0]) * max(sides[1])
                * vae_tiles.tile_bytes(sizes, item, decoding=True),
            }  # fmt: skip
            report(
                vae=kind, precision=precision, what="decode 1280x720x81",
                tiles=f"{len(tiles.rows)}x{len(tiles.columns)}",
                computed=round(sum(sides[0]) * sum(sides[1]) / cells, 2),
                gib={k: round(v / GIB, 2) for k, v in parts.items()},
                total_gib=round(sum(parts.values()) / GIB, 2),
            )  # fmt: skip


def one_tile(kind: str, divisor: str, way: str, rows: str, columns: str) -> None:
    """Code one tile of a clip of three latent frames, and report the peak above the weights."""
    sizes = part(kind, int(divisor))
    model = random_vae(sizes)
    h, w, cell = int(rows), int(columns), sizes.spatial_stride

    def code(h: int, w: int) -> None:
        whole = Grid(spans(h, 1, 0), spans(w, 1, 0))
        if way == "decode":
            vae_stream.decode(model, sizes, torch.randn(1, sizes.z_dim, 3, h, w), whole)
        else:
            vae_stream.encode(model, sizes, torch.randn(1, 3, 9, h * cell, w * cell), whole)

    code(2, 2)  # what libraries take once
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, began = status("VmRSS"), time.perf_counter()
    code(h, w)
    peak = status("VmHWM") - before
    expected = h * w * vae_tiles.tile_bytes(sizes, 4, decoding=way == "decode")
    report(
        vae=kind, width=f"1/{divisor}", what=way, cells=[h, w], peak_mib=peak >> 20,
        expected_mib=expected >> 20, seconds=round(time.perf_counter() - began, 1),
    )  # fmt: skip


def status(key: str) -> int:
    """A line of this process's memory, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(key))) * 1024


if __name__ == "__main__":
    main()
