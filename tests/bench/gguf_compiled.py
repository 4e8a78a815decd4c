"""What the GGUF kernels compile to, for a GPU that need not be there.

    python tests/bench/gguf_compiled.py [--capability 90] [--product | --fused]

For each type: registers a thread, bytes of stack (spills) and of shared memory, instructions of the
whole kernel for each weight that it makes, and the widths of its loads and stores. For ``--fused``,
``kernels/fused.py``'s, the instructions of the innermost loop and spilled registers in that. Needs
Triton, whose package carries the assembler and the disassembler.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.experimental.gluon._runtime import GluonASTSource

from gatekit_wan22.kernels.expand import UNITS, WARPS, expand_kernel
from gatekit_wan22.kernels.fused import Tile, candidates
from gatekit_wan22.kernels.fused_kernel import fused_kernel
from gatekit_wan22.kernels.kinds import KINDS, Kind
from gatekit_wan22.kernels.product import product_kernel, step_of, tile_of

COLUMNS = 5120
TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"


def compiled(kernel: Any, types: dict[str, str], constants: dict[str, Any], **options: int) -> Any:
    """A kernel for pointers and numbers that are multiples of 16, as they are in use."""
    plain = {p.name for p in kernel.params if p.do_not_specialize}
    attributes = {
        (i,): [["tt.divisibility", 16]] for i, name in enumerate(types) if name not in plain
    }
    signature = {**types, **dict.fromkeys(constants, "constexpr")}
    made = GluonASTSource if kernel.is_gluon() else ASTSource
    source = made(kernel, signature, constants, attributes)
    return triton.compile(source, target=GPUTarget("cuda", ARGS.capability, 32), options=options)


def words(kind: Kind) -> str:
    """The type of a pointer to blocks."""
    return "*i32" if kind.word == 4 else "*i16"


def expanding(kind: Kind) -> Any:
    """Blocks to bf16 in memory."""
    types = {"words": words(kind), "out": "*bf16", "units": "i32"}
    constants = {**kind.constants, "UNITS": UNITS}
    return compiled(expand_kernel, types, constants, num_warps=WARPS)


def multiplying(kind: Kind, tokens: int) -> Any:
    """A product with a square matrix, with the tile of so many tokens."""
    blocks = COLUMNS // kind.weights
    step = step_of(kind, blocks)
    tile = tile_of(tokens, COLUMNS, blocks // step)
    pointers = {"x": "*bf16", "words": words(kind), "bias": "*bf16"}
    pointers["out"] = "*bf16" if tile["parts"] == 1 else "*fp32"
    types = {**pointers, **dict.fromkeys(("tokens", "rows", "blocks", "x_stride"), "i32")}
    constants = {
        **kind.constants, "BIAS": True, "M": tile["m"], "N": tile["n"], "STEP": step,
        "STEPS": blocks // step // tile["parts"], "PARTS": tile["parts"],
    }  # fmt: skip
    options = {"num_warps": tile["warps"], "num_stages": tile["stages"]}
    return compiled(product_kernel, types, constants, **options)


def fusing(kind: Kind, tile: Tile) -> Any:
    """A product with one of the tiles for Hopper."""
    names = "tokens", "rows", "blocks", "steps", "x_stride"
    pointers = {"x": "*bf16", "words": words(kind), "bias": "*bf16", "out": "*bf16"}
    types = {**pointers, "work": "*fp32", "arrivals": "*i32", **dict.fromkeys(names, "i32")}
    constants = {
        **kind.constants, "BIAS": True, "ROWS": tile.rows, "TOKENS": tile.tokens,
        "STAGES": tile.stages, "HELD": tile.held,
    }  # fmt: skip
    limit = {"maxnreg": tile.registers} if tile.registers else {}
    return compiled(fused_kernel, types, constants, num_warps=tile.warps, **limit)


def tool(name: str, *args: str) -> str:
    """The output of one of Triton's tools."""
    done = subprocess.run([TOOLS / name, *args], capture_output=True, text=True, check=True)
    return done.stdout


LINE = r"^\s+/\*[0-9a-f]{4,5}\*/\s+(?:@!?U?\w+\s+)?([A-Z0-9_]+)"


def inner_loop(listing: str) -> Counter[str]:
    """Instructions of the shortest loop with a product, by name."""
    labels: dict[str, int] = {}
    seen: list[str] = []
    loops = []
    for line in listing.splitlines():
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label[1]] = len(seen)
        elif name := re.match(LINE, line):
            seen.append(name[1])
            back = re.search(r"BRA.*\((\.L_x_\d+)\)", line)
            if back and "HGMMA" in (loop := seen[labels.get(back[1], len(seen)) :]):
                loops.append(loop)
    return Counter(n for n in min(loops, key=len) if n != "NOP")


def listed(binary: Any) -> tuple[dict[str, str], str]:
    """Resources, and the listing."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernel.cubin")
        file.write_bytes(binary.asm["cubin"])
        used = dict(re.findall(r"(REG|STACK):(\d+)", tool("cuobjdump", "-res-usage", str(file))))
        return used, tool("nvdisasm", "-c", str(file))


def facts(binary: Any) -> tuple[dict[str, str], Counter[str], Counter[str]]:
    """Resources, instructions by name, and loads and stores by kind."""
    used, listing = listed(binary)
    names = Counter(n for n in re.findall(LINE, listing, re.M) if n != "NOP")
    return used, names, Counter(re.findall(r"(?:ld|st)\.global[a-z0-9.]*", binary.asm["ptx"]))


def main() -> None:
    """Compile and print."""
    for name, kind in KINDS.items():
        for tokens in (510, 64) if ARGS.fused else ():
            for tile in (t for t in candidates(tokens, 132) if t.programs == 132 or t.registers):
                binary = fusing(kind, tile)
                used, listing = listed(binary)
                loop = inner_loop(listing)
                each = loop.total() * 32 * tile.warps / (tile.rows * 64 * kind.planes)
                head = f"{name:7}{tile.rows:4} x {tile.tokens:3} {used['REG']:>4} registers"
                more = f"{each:5.1f} instructions a weight; spills {loop['STL']}, {loop['LDL']}"
                more += f"; barriers {loop['BAR']}, products {loop['HGMMA']}"
                shared = f"stack {used['STACK']}, shared {binary.metadata.shared}"
                print(f"{head}, {shared}; loop: {more}", flush=True)
        if ARGS.fused:
            continue
        if not ARGS.product:
            binary = expanding(kind)
            used, names, moves = facts(binary)
            each = names.total() * 32 * WARPS / (UNITS * 8 * kind.planes)
            more = f"{each:5.1f} instructions a weight; {dict(moves)}"
            print(f"{name:7}{used['REG']:>4} registers, stack {used['STACK']}; {more}", flush=True)
        for tokens in (1, 64, 510) if ARGS.product else ():
            binary = multiplying(kind, tokens)
            used, names, _ = facts(binary)
            units = {n: names[n] for n in ("HMMA", "HGMMA") if names[n]}
            more = f"shared {binary.metadata.shared}; {units}"
            head = f"{name:7}{tokens:4} tokens {used['REG']:>4} registers"
            print(f"{head}, stack {used['STACK']}, {more}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--capability", type=int, default=90)
    parser.add_argument("--product", action="store_true", help="the fused product instead")
    parser.add_argument("--fused", action="store_true", help="the one for Hopper")
    ARGS = parser.parse_args()
    main()
