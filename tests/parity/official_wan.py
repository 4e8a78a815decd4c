"""Run Wan's own code beside gatekit's, on random weights, and print how far they are apart.

    git clone https-or-local-copy-of Wan2.2; pip install einops ftfy
    python tests/parity/official_wan.py /path/to/Wan2.2

Nothing of Wan's is part of this project: its modules are loaded from the given folder. Prints
one line of JSON a comparison: relative difference ||ours - theirs|| / ||theirs||. Both sides
compute in float32 on the CPU. Wan's attention, which needs a GPU, is replaced by torch's.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import gatekit
from gatekit_wan22 import WanConditioning, load_text_encoder, load_vae


def main() -> None:
    """Compare everything that can be compared."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wan", type=Path, help="folder of a clone of Wan2.2")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    _open_packages(args.wan / "wan")
    for shift, steps in ((5.0, 20), (12.0, 40)):
        for solver in ("unipc", "dpm++"):
            compare_solver(solver, steps, shift)
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("t2v", "i2v"):
            compare_transformer(kind, Path(folder))
        compare_text_encoder(Path(folder))
        compare_vae(Path(folder))


def _open_packages(root: Path) -> None:
    """Make ``wan.modules`` and ``wan.utils`` importable without what their packages pull in."""
    if not (root / "modules" / "model.py").exists():
        sys.exit(f"{root}: no wan/modules/model.py there; give the folder of a clone of Wan2.2")
    for name, path in (
        ("wan", root),
        ("wan.modules", root / "modules"),
        ("wan.utils", root / "utils"),
    ):
        package = types.ModuleType(name)
        package.__path__ = [str(path)]
        sys.modules[name] = package


def _report(what: str, ours: Tensor, theirs: Tensor, **more: Any) -> None:
    difference = float((ours.double() - theirs.double()).norm() / theirs.double().norm())
    print(json.dumps({"compared": what, **more, "relative_difference": difference}), flush=True)


def _field(seed: int) -> Any:
    """A smooth nonlinear denoiser D(x, sigma) with a bounded answer."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(24, 24, generator=generator) / 24**0.5 for _ in range(2))

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return torch.tanh(x @ a * (1.5 - sigma)) @ b + 0.2 * torch.sin(3 * x + sigma)

    return denoise


def compare_solver(name: str, steps: int, shift: float, boundary: float = 0.9) -> None:
    """Wan's solver over a switch of experts (one scheduler) against two phases that carry."""
    high, low = _field(1), _field(2)
    x0 = torch.randn(1, 24, 24, generator=torch.Generator().manual_seed(0))
    if name == "unipc":
        module = importlib.import_module("wan.utils.fm_solvers_unipc")
        scheduler = module.FlowUniPCMultistepScheduler(1000, shift=1, use_dynamic_shifting=False)
        scheduler.set_timesteps(steps, device="cpu", shift=shift)
    else:
        module = importlib.import_module("wan.utils.fm_solvers")
        scheduler = module.FlowDPMSolverMultistepScheduler(
            1000, shift=1, use_dynamic_shifting=False
        )
        sigmas = module.get_sampling_sigmas(steps, shift)
        module.retrieve_timesteps(scheduler, device="cpu", sigmas=sigmas)
    grid = [float(s) for s in scheduler.sigmas]
    x = x0.clone()
    for i, t in enumerate(scheduler.timesteps):
        field = high if int(t) >= boundary * 1000 else low
        velocity = (x - field(x, grid[i])) / grid[i]
        x = scheduler.step(velocity, t, x, return_dict=False)[0]
    cut = next(i for i, t in enumerate(scheduler.timesteps) if int(t) < boundary * 1000)
    sampler = "unipc" if name == "unipc" else "dpmpp_2m"
    ours = gatekit.sample_phases(
        [
            gatekit.FunctionPhase(high, sampler=sampler, sigmas=grid[: cut + 1], field="high"),
            gatekit.FunctionPhase(
                low, sampler=sampler, sigmas=grid[cut:], field="low", history="carry"
            ),
        ],
        x0,
        seed=0,
        path="flow",
    )
    _report(f"solver {name}", ours, x, steps=steps, shift=shift, high_steps=cut)


def _randomise(module: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            scale = 0.3 if p.ndim == 1 or "modulation" in name else p[0].numel() ** -0.5
            one = name.endswith(("norm_q.weight", "norm_k.weight", "norm3.weight", "gamma"))
            one = one or name.endswith(("norm1.weight", "norm2.weight", "norm.weight"))
            p.copy_(torch.randn(p.shape, generator=generator) * scale * (0.3 if one else 1) + one)


def _attention(
    q: Tensor, k: Tensor, v: Tensor, *, k_lens: Tensor | None = None, **_: Any
) -> Tensor:
    """Attention of torch in the place of flash attention; keys beyond ``k_lens`` are left out."""
    length = int(k_lens.max()) if k_lens is not None else k.shape[1]
    q, k, v = (t.transpose(1, 2) for t in (q, k[:, :length], v[:, :length]))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def compare_transformer(kind: str, folder: Path) -> None:
    """Velocity of one small expert."""
    from safetensors.torch import save_file

    module = importlib.import_module("wan.modules.model")
    module.flash_attention = _attention
    channels = 16 if kind == "t2v" else 36
    model = module.WanModel(
        model_type=kind, in_dim=channels, dim=256, ffn_dim=512, text_dim=64, num_heads=2,
        num_layers=3,
    ).eval()  # fmt: skip
    _randomise(model, 3)
    file = folder / f"{kind}.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, file)
    generator = torch.Generator().manual_seed(4)
    x, image = (torch.randn(1, c, 5, 8, 12, generator=generator) for c in (16, 20))
    text = torch.randn(1, 40, 64, generator=generator)
    padded = torch.nn.functional.pad(text, (0, 0, 0, 512 - 40))
    variant = gatekit.open_variant(
        {"use": "safetensors", "file": str(file)}, family="wan22", device="cpu", compute="fp32"
    )
    for sigma in (1.0, 0.9, 0.5, 0.02):
        y = [image[0]] if kind == "i2v" else None
        with torch.no_grad():
            theirs = model([x[0]], torch.tensor([1000 * sigma]), [text[0]], seq_len=5 * 4 * 6, y=y)[
                0
            ]
        condition = WanConditioning(text=padded, image=image if kind == "i2v" else None)
        _report(
            f"transformer {kind}", variant.velocity(x, sigma, condition)[0], theirs, sigma=sigma
        )


def compare_text_encoder(folder: Path) -> None:
    """Embeddings of random tokens, padded and masked."""
    from safetensors.torch import save_file

    torch.cuda.current_device = lambda: 0  # a default argument in Wan's module asks for it
    module = importlib.import_module("wan.modules.t5")
    model = module.T5Encoder(
        vocab=100, dim=64, dim_attn=128, dim_ffn=96, num_heads=2, num_layers=3, num_buckets=32,
        shared_pos=False,
    ).eval()  # fmt: skip
    _randomise(model, 5)
    file = folder / "umt5.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, file)
    ids = torch.randint(2, 100, (2, 40), generator=torch.Generator().manual_seed(6))
    mask = (torch.arange(40) < torch.tensor([[40], [23]])).long()
    with torch.no_grad():
        theirs = model(ids, mask) * mask[..., None]
    ours = load_text_encoder(file, precision="fp32", device="cpu").embed_ids(ids, mask)
    _report("text encoder", ours[:, :40], theirs)


def compare_vae(folder: Path) -> None:
    """Normalised latent of a video, and the video of a latent."""
    from safetensors.torch import save_file

    module = importlib.import_module("wan.modules.vae2_1")
    model = module.WanVAE_(
        dim=16, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2,
        temperal_downsample=[False, True, True],
    ).eval()  # fmt: skip
    _randomise(model, 7)
    file = folder / "vae.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, file)
    statistics = module.Wan2_1_VAE.__init__.__code__.co_consts
    numbers = [c for c in statistics if isinstance(c, tuple) and len(c) == 16]
    mean, std = (torch.tensor(c, dtype=torch.float32) for c in numbers[:2])
    scale = [mean, 1.0 / std]
    generator = torch.Generator().manual_seed(8)
    video = torch.rand(1, 3, 13, 32, 48, generator=generator) * 2 - 1
    latent = torch.randn(1, 16, 4, 4, 6, generator=generator)
    vae = load_vae(file, precision="fp32", device="cpu")
    with torch.no_grad():
        _report("VAE encode", vae.encode(video), model.encode(video, scale))
        _report("VAE decode", vae.decode(latent), model.decode(latent, scale).clamp(-1, 1))


if __name__ == "__main__":
    np.seterr(divide="ignore")
    main()
