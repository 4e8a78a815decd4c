"""Record outputs of Wan's own code at small sizes, for tests/plugins/wan22/test_official.py.

    python tests/parity/record_official.py /path/to/Wan2.2

Writes ``official.safetensors`` and ``official_shapes.json`` to tests/plugins/wan22/data, whose
README says what is in them. Nothing of Wan's code goes in. Needs a clone of the official
repository, and einops; float32 on the CPU; attention is torch's, as Wan's needs a GPU.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from official_wan import _attention, _open_packages
from safetensors.torch import save_file
from torch import Tensor

TESTS = Path(__file__).parents[1] / "plugins" / "wan22"
sys.path.insert(0, str(TESTS))
recipe: Any = importlib.import_module("recipe")


def main() -> None:
    """Run everything once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wan", type=Path, help="folder of a clone of Wan2.2")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    _open_packages(args.wan / "wan")
    torch.cuda.current_device = lambda: 0  # a default argument in Wan's module asks for it
    shapes: dict[str, dict[str, list[int]]] = {}
    outputs: dict[str, Tensor] = {}
    with torch.no_grad():
        for kind, sizes in recipe.TRANSFORMERS.items():
            outputs |= transformer(kind, sizes, shapes)
        outputs |= text_encoder(shapes)
        for kind, sizes in recipe.VAES.items():
            outputs |= vae(kind, sizes, shapes)
    outputs = {name: value.float().contiguous() for name, value in outputs.items()}
    save_file(outputs, TESTS / "data" / "official.safetensors")
    (TESTS / "data" / "official_shapes.json").write_text(json.dumps(shapes, indent=0) + "\n")
    for name, value in outputs.items():
        print(name, list(value.shape), f"deviation {value.std():.4f}")


def filled(kind: str, model: Any, shapes: dict[str, dict[str, list[int]]]) -> Any:
    """The model with the recipe's weights; its names and shapes are noted."""
    shapes[kind] = {name: list(p.shape) for name, p in model.state_dict().items()}
    model.load_state_dict(recipe.state_dict(kind, shapes[kind]), strict=True)
    return model.eval()


def transformer(kind: str, sizes: dict[str, Any], shapes: Any) -> dict[str, Tensor]:
    """Velocities at some sigmas; for the 5B model also a whole run with a first frame."""
    module = importlib.import_module("wan.modules.model")
    module.flash_attention = _attention
    model = filled(kind, module.WanModel(**sizes), shapes)
    x, text, tokens = recipe.state(sizes["out_dim"])[0], recipe.text()[0], 3 * 2 * 3
    outputs = {}
    for sigma in recipe.GRID:
        given, time, y = x, torch.tensor([1000.0 * sigma]), None
        if kind == "i2v":
            y = [recipe.numbers("image", 20, 3, 4, 6)]
        if kind == "ti2v":
            given, time = clean(x), per_token(1000.0 * sigma, tokens)
        outputs[f"{kind}/velocity/{sigma}"] = model([given], time, [text], tokens, y=y)[0]
    if kind == "ti2v":
        outputs["ti2v/run"] = run(model, x, tokens)
    return outputs


def clean(x: Tensor) -> Tensor:
    """A state with the known first frame in it."""
    return torch.cat([recipe.numbers("first", 48, 1, 4, 6), x[:, 1:]], dim=1)


def per_token(time: float, tokens: int) -> Tensor:
    """Time 0 at the first frame's tokens."""
    times = torch.full((1, tokens), time)
    times[:, : tokens // 3] = 0.0
    return times


def run(model: Any, noise: Tensor, tokens: int) -> Tensor:
    """Wan's UniPC and guidance; the first frame overwritten before the run and after each step."""
    module = importlib.import_module("wan.utils.fm_solvers_unipc")
    solver = module.FlowUniPCMultistepScheduler(1000, shift=1, use_dynamic_shifting=False)
    solver.set_timesteps(recipe.STEPS, device="cpu", shift=recipe.SHIFT)
    positive, negative = recipe.text()[0], recipe.text("negative")[0]
    x = clean(noise)
    for t in solver.timesteps:
        time = per_token(float(t), tokens)
        a, b = (model([x], time, [text], tokens)[0] for text in (positive, negative))
        guided = b + recipe.SCALE * (a - b)
        x = clean(solver.step(guided[None], t, x[None], return_dict=False)[0][0])
    return x


def text_encoder(shapes: Any) -> dict[str, Tensor]:
    """Embeddings of two lengths; what is padding is zero."""
    module = importlib.import_module("wan.modules.t5")
    model = filled("umt5", module.T5Encoder(**recipe.UMT5), shapes)
    ids, mask = recipe.ids()
    return {"umt5": model(ids, mask) * mask[..., None]}


def vae(kind: str, sizes: dict[str, Any], shapes: Any) -> dict[str, Tensor]:
    """The normalised latent of a video, and the video of a latent."""
    module = importlib.import_module(f"wan.modules.vae2_{kind[-1]}")
    model = filled(kind, module.WanVAE_(**sizes), shapes)
    owner = module.Wan2_1_VAE if kind == "vae21" else module.Wan2_2_VAE
    z = sizes["z_dim"]
    constants = owner.__init__.__code__.co_consts
    mean, std = [torch.tensor(c) for c in constants if isinstance(c, tuple) and len(c) == z][:2]
    scale = [mean.float(), 1.0 / std.float()]
    video = recipe.numbers("video", 1, 3, 9, 32, 64) / 3**0.5
    latent = recipe.numbers(f"latent/{z}", 1, z, 3, 2, 3)
    return {
        f"{kind}/encode": model.encode(video, scale),
        f"{kind}/decode": model.decode(latent, scale).clamp(-1, 1),
    }


if __name__ == "__main__":
    main()
