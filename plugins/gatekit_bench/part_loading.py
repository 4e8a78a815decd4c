"""Loading: the variants of a gated run, and diffusers' two experts, from cached files."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable
from math import prod
from typing import Any

import gatekit
from gatekit_bench.files import Random, write_gguf, write_safetensors
from gatekit_bench.findings import Row
from gatekit_bench.lab import PEER, PLAIN, Lab
from gatekit_bench.part_gated import STEPS, arms, gate, seconds_of
from gatekit_bench.peer import diffusers_config
from gatekit_wan22.sizes import expected_shapes

AIM = 0.5  # of a gated run with loading, over diffusers with two experts
TIMES = 2  # loads of each, of which the shorter counts


def loading(lab: Lab) -> None:
    """Seconds of each load, then gated runs with what they load, nothing of it hidden."""
    size = 2 * sum(prod(shape) for shape in expected_shapes(lab.sizes).values())
    lab.room(1.1 * size)
    lab.findings.need(45 if lab.cuda else 0, "writing and loading an expert")
    lab.close()
    fill = Random(lab.device)
    theirs = least(lab, f"diffusers {lab.compute}, an expert", diffusers_load(lab, fill), size)
    lab.loads[PEER] = theirs
    shutil.rmtree(lab.folder / "peer")
    coarse, fine = lab.types[0], lab.types[-1]
    ours: dict[str, float] = {}
    for name in dict.fromkeys((coarse, fine, PLAIN)):
        file = lab.folder / ("load.safetensors" if name == PLAIN else f"load_{name}.gguf")
        if name == PLAIN:
            write_safetensors(file, expected_shapes(lab.sizes), fill)
            spec: dict[str, Any] = {"use": "safetensors", "file": str(file)}
        else:
            write_gguf(file, lab.sizes, name, fill)
            spec = {"use": "gguf", "file": str(file), "keep": "never"}
        ours[name] = least(lab, lab.label(name), our_load(lab, spec), file.stat().st_size)
        file.unlink()
    with_loading(lab, 2 * theirs, sum(ours[n] for n in (coarse, fine, PLAIN)))


def least(lab: Lab, what: str, load: Callable[[], Any], size: int) -> float:
    """Seconds of the shortest of some loads; each one's model is given back."""
    times: list[float] = []
    for _ in range(TIMES):
        kept: list[Any] = []
        times.append(lab.clock.once(lambda kept=kept: kept.append(load())))
        unload = getattr(kept.pop(), "unload", None)
        if unload is not None:
            unload()
        gc.collect()
    bound = size / lab.rates["host"] if "host" in lab.rates else None
    lab.findings.add(
        Row(f"loading {what}, {size / 1e9:.3g} GB in the page cache", min(times), "s", bound)
    )
    return min(times)


def diffusers_load(lab: Lab, fill: Random) -> Callable[[], Any]:
    """``from_pretrained`` of a folder as diffusers writes it, then to the device."""
    import torch
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    from gatekit_wan22.precision import torch_dtype

    folder = lab.folder / "peer"
    folder.mkdir()
    with torch.device("meta"):
        model: Any = WanTransformer3DModel(**diffusers_config(lab.sizes))
    model.save_config(folder)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    write_safetensors(folder / "diffusion_pytorch_model.safetensors", shapes, fill)
    made: Any = WanTransformer3DModel
    dtype = torch_dtype(lab.compute)
    return lambda: made.from_pretrained(str(folder), torch_dtype=dtype).to(lab.device)


def our_load(lab: Lab, spec: dict[str, Any]) -> Callable[[], Any]:
    """A variant, opened and put on the device."""
    return lambda: gatekit.open_variant(
        spec, family="wan22", device=lab.device, compute=lab.compute
    )


def with_loading(lab: Lab, theirs: float, ours: float) -> None:
    """A gated run and diffusers' with two experts, as sums of measured passes and loads."""
    passes = gate()
    peer = lab.seconds.get((PEER, max(lab.tokens), "eager"))
    if peer is None or lab.factor != 1.0:
        lab.findings.say("  no run with its loads: passes of whole models were not measured")
        return
    total = theirs + peer * passes.total
    for title, names in arms(lab).items():
        if (found := seconds_of(lab, names, passes)) is None:
            continue
        run = ours + found[0]
        lab.findings.add(
            Row(
                f"{STEPS} steps with guidance, loading included, {title}", run, "s",
                over=lab.label(PEER), ratio=run / total, aim=AIM if lab.cuda else None,
                note="sum of measured passes and of all loads one after another",
            )
        )  # fmt: skip
