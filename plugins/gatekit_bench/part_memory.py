"""Two experts from files that are really there: the stall at the switch, and limited memory."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gatekit
from gatekit_bench.files import Random, weights_of, write_gguf, write_safetensors
from gatekit_bench.findings import LeftOut, Row
from gatekit_bench.lab import GIB, Lab
from gatekit_bench.part_forward import LIKELY
from gatekit_bench.sizes import latent_of
from gatekit_wan22.sizes import expected_shapes

if TYPE_CHECKING:
    from torch import Tensor

STEPS = 2  # of each phase
STALL_AIM = 0.3  # seconds
LIMITS = {16: 1.08, 10: 1.15}  # GiB of a GPU -> aim over the unlimited time
BESIDE = 0.3  # of the smaller expert fits beside the larger one, where none should fit whole
SHARES = {16: 0.7, 10: 0.5}  # of the blocks' weights, for a model that is smaller than a limit


@dataclass
class Watch:
    """When steps ended, and how long each took, by phase."""

    ended: list[tuple[str, float, float]] = field(default_factory=list[tuple[str, float, float]])

    def __call__(self, state: gatekit.State, record: gatekit.Record, denoised: Tensor) -> None:
        """A step has ended; its result is there."""
        self.ended.append((record.phase, time.perf_counter(), record.seconds))

    @property
    def stall(self) -> float:
        """Seconds between the last step of one phase and the first of the next."""
        before = [at for phase, at, _ in self.ended if phase == "first"][-1]
        _, at, took = next(entry for entry in self.ended if entry[0] == "second")
        return max(0.0, at - took - before)

    @property
    def seconds(self) -> float:
        """From the start of the first step to the end of the last one, the switch included."""
        _, first, took = self.ended[0]
        return self.ended[-1][1] - (first - took)


def write_both(lab: Lab, files: tuple[Path, Path]) -> None:
    """The first expert as a GGUF, the second in bf16, with random weights.

    Raises:
        LeftOut: There is too little room, or the disk is too slow for the time that is left.
    """
    first, second = files
    shapes = expected_shapes(lab.sizes)
    last = 2 * sum(prod(shape) for shape in shapes.values())
    lab.room(1.1 * (last + weights_of(lab.sizes, lab.types[0])))
    fill, began = Random(lab.device), time.perf_counter()
    write_gguf(first, lab.sizes, lab.types[0], fill)
    size, took = first.stat().st_size, time.perf_counter() - began
    if lab.cuda:
        lab.findings.need(took * last / size + 15, f"writing {last / 1e9:.0f} GB")
    write_safetensors(second, shapes, fill)
    size, took = size + second.stat().st_size, time.perf_counter() - began
    lab.findings.say(f"  {size / 1e9:.3g} GB of weight files written in {took:.1f} s")


def schedule(lab: Lab, files: tuple[Path, Path], vram: int | None) -> gatekit.Schedule:
    """Two phases of ``STEPS`` steps, without guidance."""
    data: dict[str, Any] = {
        **common(lab, "bench"),
        "variants": {
            "first": {"use": "gguf", "file": str(files[0]), "keep": "never"},
            "second": {"use": "safetensors", "file": str(files[1])},
        },
        "sigmas": {"use": "shifted_linear", "steps": 2 * STEPS, "shift": 5.0},
        "phases": [
            {"name": "first", "until": {"step": STEPS}, "variant": "first", **_plain()},
            {"name": "second", "variant": "second", **_plain()},
        ],
    }  # fmt: skip
    if vram is not None:
        data["memory"] = {"vram": vram}
    return gatekit.Schedule.from_dict(data)


def common(lab: Lab, name: str) -> dict[str, Any]:
    """Of a schedule on models of the bench's own sizes: its family, and the longest video."""
    frames, height, width = latent_of(max(lab.tokens))
    return {
        "version": 1,
        "name": name,
        "family": {
            "use": "synthetic",
            "channels": lab.sizes.out_channels,
            "image_channels": lab.sizes.image_channels,
            "text_dim": lab.sizes.text_dim,
        },
        "video": {
            "width": 8 * width, "height": 8 * height, "frames": 4 * (frames - 1) + 1, "fps": 16,
        },
    }  # fmt: skip


def _plain() -> dict[str, Any]:
    return {"sampler": "euler", "history": "reset", "compile": False}


def timed(lab: Lab, files: tuple[Path, Path], vram: int | None) -> tuple[Watch, gatekit.Result]:
    """One run, observed."""
    plan = gatekit.resolve(schedule(lab, files, vram), device=lab.device, require_files=True)
    watch = Watch()
    if lab.cuda:
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(lab.device)
    inputs = gatekit.Inputs(prompt="bench")
    try:
        result = gatekit.run(plan, inputs, observers=[watch], decode=False)
    finally:
        give_back(plan)
    return watch, result


def give_back(plan: gatekit.Plan) -> None:
    """Give a run's models back, which stay for the next run of the same plan."""
    for variant in plan.variants.values():
        variant.unload()


def peak(lab: Lab) -> float | None:
    """GiB of the device at most, since ``timed`` began."""
    if not lab.cuda:
        return None
    import torch

    return torch.cuda.max_memory_allocated(lab.device) / GIB


def memory(lab: Lab) -> None:
    """Unlimited, then with as much that the experts do not fit together, then within the limits."""
    passes = 2 * STEPS * lab.bound(max(lab.tokens)) / lab.factor
    each = LIKELY * passes + (5 if lab.cuda else 0)  # loading
    lab.findings.need(2 * each, "two runs of two experts")
    lab.close()
    forget_compiled()
    files = lab.folder / "first.gguf", lab.folder / "second.safetensors"
    try:
        write_both(lab, files)
        runs(lab, files, each)
    finally:
        for file in files:
            file.unlink(missing_ok=True)


def runs(lab: Lab, files: tuple[Path, Path], each: float) -> None:
    """The runs on both files, of about ``each`` seconds."""
    free, result = timed(lab, files, None)
    report(lab, "unlimited", free, None, result)
    first, second = footprints(result.plan)
    apart = second.weights + second.working + int(BESIDE * first.weights)
    lab.findings.need(each, "a run with one expert at a time")
    watch, result = timed(lab, files, apart)
    report(lab, "not both at once", watch, free, result, apart)
    lab.findings.add(
        Row(
            f"stall at the switch, {apart / GIB:.3g} GiB", watch.stall, "s",
            ratio=watch.stall, over="1 s", aim=STALL_AIM if lab.cuda else None, note=lab.measured,
        )
    )  # fmt: skip
    for limit, aim in LIMITS.items():
        lab.findings.need(each, f"a run within {limit} GiB")
        vram = limit * GIB
        if vram >= second.weights + second.working:
            vram = second.fixed + second.working + int(SHARES[limit] * sum(second.blocks))
        try:
            watch, result = timed(lab, files, vram)
        except gatekit.ScheduleError as refused:
            lab.findings.say(f"  left out: {refused.message}; {refused.remedy}")
            continue
        report(lab, f"within {vram / GIB:.3g} GiB", watch, free, result, vram, aim)


def forget_compiled() -> None:
    """Let torch drop compiled code, and what that may hold in memory."""
    import torch._dynamo

    torch._dynamo.reset()


def footprints(plan: gatekit.Plan) -> list[Any]:
    """What each expert takes on the device. Raises LeftOut where one does not tell."""
    latent = plan.family.latent_shape(plan.video)
    found = [plan.variants[p.variant].footprint(p.compute, latent) for p in plan.phases]
    if None in found:
        raise LeftOut("what the experts take is not known")
    return found


def report(
    lab: Lab,
    what: str,
    watch: Watch,
    free: Watch | None,
    result: gatekit.Result,
    limit: int | None = None,
    aim: float | None = None,
) -> None:
    """Rows of one run."""
    found = result.trajectory
    if len(found) != 2 * STEPS:
        raise ArithmeticError(f"{len(found)} steps where {2 * STEPS} were planned")
    lab.findings.add(
        Row(
            f"{2 * STEPS} passes of two experts, switch included, {what}",
            watch.seconds,
            "s",
            over="" if free is None else "unlimited",
            ratio=None if free is None else watch.seconds / free.seconds,
            aim=aim if lab.cuda and lab.factor == 1.0 else None,
            note=lab.measured,
        )
    )
    most = peak(lab)
    if most is not None:
        bound = None if limit is None else limit / GIB
        lab.findings.add(Row(f"most device memory, {what}", most, "GiB", bound))
