"""What a LoRA costs in a forward of a transformer, beside what its arithmetic must cost.

    python tests/bench/lora.py [--dim 1024] [--layers 2] [--frames 5] [--rank 64] [--compute fp32]

Random weights of Wan's architecture, as fp16 and as Q8_0 (blocks kept, decoded when used), and a
LoRA on every matrix of every block. Each model runs without LoRA, with one and with two beside its
layers, and with one merged (fp16 only). All run in turn, again and again; of each the fastest run
counts, in CPU time of one thread, so that a busy machine does not count. Printed:

- ratio: to the same file without LoRA;
- bound: the ratio of the multiplications, counted: 2 n rank (in + out) more for a layer that sees
  n tokens. Whatever is above it is memory traffic, small products' lower speed, and calls.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from gatekit_wan22 import GGUFVariant, SafetensorsVariant, WanConditioning, layout_transformer

REPEATS = 7


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--frames", type=int, default=5, help="latent frames of 30 x 52")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--compute", default="fp32", choices=["fp32", "bf16", "fp16"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        measure(args, Path(folder))


def measure(args: argparse.Namespace, folder: Path) -> None:
    """Make the files, run every case in turn, print."""
    official = make_model(args, folder)
    make_lora(official, args.rank, folder / "a.safetensors", seed=1)
    make_lora(official, args.rank, folder / "b.safetensors", seed=2)
    one = [{"file": folder / "a.safetensors", "strength": 0.8}]
    two = [*one, {"file": folder / "b.safetensors", "strength": 0.5}]
    cases = {}
    for kind, cls in (("fp16", SafetensorsVariant), ("Q8_0", GGUFVariant)):
        file = {"file": folder / ("m.gguf" if kind == "Q8_0" else "m.safetensors"), "keep": "never"}
        cases[kind, "no LoRA"] = cls(cls.Params(**file))
        cases[kind, "one beside"] = cls(cls.Params(**file, loras=one, lora_mode="side"))
        cases[kind, "two beside"] = cls(cls.Params(**file, loras=two, lora_mode="side"))
        if kind == "fp16":
            cases[kind, "one merged"] = cls(cls.Params(**file, loras=one, lora_mode="merge"))
    for variant in cases.values():
        variant.load("cpu", args.compute)
    x = torch.randn(1, 16, args.frames, 30, 52, generator=torch.Generator().manual_seed(0))
    conditioning = WanConditioning(text=torch.randn(1, 512, 64))
    with torch.no_grad():
        base = flops(cases["fp16", "no LoRA"], x, conditioning)
        more = extra_flops(cases["fp16", "one beside"], x, conditioning)
        seconds = {case: float("inf") for case in cases}
        for _ in range(REPEATS):
            for case, variant in cases.items():
                began = time.thread_time()
                variant.velocity(x, 0.7, conditioning)
                seconds[case] = min(seconds[case], time.thread_time() - began)
    tokens = args.frames * 15 * 26
    print(
        f"{args.layers} layers x {args.dim}, {tokens} tokens, rank {args.rank}, computed in "
        f"{args.compute}, one thread; {base / 1e9:.4g} GFLOP without LoRA"
    )
    print(f"{'file':6}{'LoRA':14}{'ms':>9}{'ratio':>8}{'bound':>8}")
    for (kind, what), taken in seconds.items():
        share = {"one beside": 1, "two beside": 2}.get(what, 0) * more / base
        ratio = taken / seconds[kind, "no LoRA"]
        print(f"{kind:6}{what:14}{1000 * taken:9.1f}{ratio:8.3f}{1 + share:8.3f}")


def make_model(args: argparse.Namespace, folder: Path) -> dict[str, torch.Tensor]:
    """Random weights as ``m.safetensors`` in fp16 and ``m.gguf`` in Q8_0."""
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    model = WanTransformer3DModel(
        num_attention_heads=args.dim // 128,
        num_layers=args.layers,
        ffn_dim=args.dim * 27 // 10 // 32 * 32,
        text_dim=64,
    )
    state = layout_transformer.diffusers_to_official(model.state_dict())
    state = {name: value.half().contiguous() for name, value in state.items()}
    save_file(state, folder / "m.safetensors")
    writer = gguf.GGUFWriter(folder / "m.gguf", "wan")
    kind = gguf.GGMLQuantizationType.Q8_0
    for name, value in state.items():
        if name in matrices(state):
            blocks = gguf.quants.quantize(value.float().numpy(), kind)
            writer.add_tensor(name, blocks, raw_dtype=kind)
        else:
            writer.add_tensor(name, value.numpy().astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return state


def matrices(state: dict[str, torch.Tensor]) -> list[str]:
    """The ten matrices of each block."""
    return [n for n, p in state.items() if n.startswith("blocks.") and p.ndim == 2]


def make_lora(state: dict[str, torch.Tensor], rank: int, path: Path, seed: int) -> None:
    """A LoRA on every matrix of every block, in fp16."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name in matrices(state):
        stem, (out, into) = f"diffusion_model.{name.removesuffix('.weight')}", state[name].shape
        tensors[f"{stem}.lora_down.weight"] = torch.randn(rank, into, generator=generator).half()
        up = torch.randn(out, rank, generator=generator) * 1e-3
        tensors[f"{stem}.lora_up.weight"] = up.half()
        tensors[f"{stem}.alpha"] = torch.tensor(rank)
    save_file(tensors, path)


def flops(variant: SafetensorsVariant, x: torch.Tensor, conditioning: WanConditioning) -> float:
    """Floating-point operations of a forward: matrix products, convolutions and attention."""
    with FlopCounterMode(display=False) as counter:
        variant.velocity(x, 0.7, conditioning)
    return float(counter.get_total_flops())


def extra_flops(
    variant: SafetensorsVariant, x: torch.Tensor, conditioning: WanConditioning
) -> float:
    """Operations of the branches: 2 n rank (in + out), with n as each layer sees it."""
    total = 0.0

    def count(branch: torch.nn.Module, given: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        nonlocal total
        down, up, _ = branch.active
        total += 2 * given[0].numel() / given[0].shape[-1] * (down.numel() + up.numel())

    handles = [
        module.register_forward_hook(count)
        for module in variant.module.modules()
        if type(module).__name__ == "LoraLinear"
    ]
    variant.velocity(x, 0.7, conditioning)
    for handle in handles:
        handle.remove()
    return total


if __name__ == "__main__":
    main()
