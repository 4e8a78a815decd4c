"""Time and memory of a text encoder of UMT5-XXL's size on a CPU, beside what the machine can do.

    python tests/bench/text_encoder.py --folder /path/with/12/GB --threads 2

Writes a file of full size and random weights for each kind (fp16 11.4 GB, Q8_0 6.0 GB, fp8
5.7 GB), encodes two prompts of 40 and 140 tokens in a process of its own, and deletes the
file. Prints a line of JSON for each kind and precision:

- ``seconds``: opening and encoding, with the file in the page cache and (``cold``) dropped
  from it;
- ``private``: memory that the process took for itself, at most, above what importing took;
  ``resident`` counts the mapped file's pages too, which the system takes back as it needs;
- ``bound``: the products alone at the speed of one product of the same shape, measured in
  that process.

Nothing here is compared with another program, and no weights of Wan's are used.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

TOKENS = (40, 140)
XXL = (256384, 4096, 10240, 24, 64, 64, 32)
PIECE = 64 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kinds", nargs="+", default=["fp16", "Q8_0", "fp8"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--sizes", type=int, nargs=7, default=XXL, help="for a quick try")
    parser.add_argument("--products", action="store_true", help="speed of one product only")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.precisions[0], args.threads)), flush=True)
        return
    if args.products:
        products(args.sizes, args.threads)
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        write_tokenizer(Path(folder) / "tokenizer.json")
        for kind in args.kinds:
            path = Path(folder) / f"umt5.{'gguf' if kind == 'Q8_0' else 'safetensors'}"
            began = time.perf_counter()
            {"fp16": write_fp16, "Q8_0": write_q8_0, "fp8": write_fp8}[kind](path, args.sizes)
            seconds = round(time.perf_counter() - began, 1)
            gigabytes = round(path.stat().st_size / 1e9, 2)
            print(json.dumps({"written": kind, "GB": gigabytes, "seconds": seconds}), flush=True)
            for precision in args.precisions:
                command = [sys.executable, __file__, "--measure", str(path)]
                command += ["--precisions", precision, "--threads", str(args.threads)]
                environment = os.environ | {"OMP_NUM_THREADS": str(args.threads)}
                done = subprocess.run(command, env=environment, capture_output=True, text=True)
                if done.returncode:
                    sys.exit(done.stderr)
                line = {"kind": kind, "precision": precision} | json.loads(done.stdout)
                print(json.dumps(line), flush=True)
            path.unlink()


def write_tokenizer(path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁a", -1.0), ("▁b", -1.0)]
    tokenizer = Tokenizer(models.Unigram(words, 2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    path.write_text(tokenizer.to_str())


def shapes_of(sizes: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    from gatekit_wan22.sizes_umt5 import UMT5Sizes, umt5_shapes

    return umt5_shapes(UMT5Sizes(*sizes))


def is_matrix(name: str) -> bool:
    return "norm" not in name and "relative" not in name


def repeated(piece: bytes, count: int, unit: int) -> Iterator[bytes]:
    """``count`` bytes out of a random piece, from another place for each tensor."""
    start = count // unit * 7919 % (len(piece) // unit) * unit
    while count:
        part = piece[start : start + count]
        yield part
        count, start = count - len(part), 0


def write_safetensors(
    path: Path,
    sizes: tuple[int, ...],
    kind: str,
    width: int,
    piece: bytes,
    scale: float | None = None,
) -> None:
    import numpy as np

    entries: dict[str, dict] = {}
    parts: list[tuple[bytes | None, int]] = []
    end = 0

    def add(name: str, dtype: str, shape: list[int], nbytes: int, content: bytes | None) -> None:
        nonlocal end
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + nbytes]}
        parts.append((content, nbytes))
        end += nbytes

    for name, shape in shapes_of(sizes).items():
        count = int(np.prod(shape))
        if is_matrix(name):
            add(name, kind, list(shape), count * width, None)
            if scale:
                number = np.float32(scale).tobytes()
                add(name.replace(".weight", ".scale_weight"), "F32", [], 4, number)
        else:
            content = np.ones(count, np.float16).tobytes()
            add(name, "F16", list(shape), 2 * count, content)
    header = json.dumps(entries).encode()
    with path.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        for content, nbytes in parts:
            stream.writelines([content] if content else repeated(piece, nbytes, width))


def random(count: int):
    import numpy as np

    return np.random.default_rng(0).standard_normal(count, np.float32)


def write_fp16(path: Path, sizes: tuple[int, ...]) -> None:
    import numpy as np

    piece = (random(PIECE // 2) / sizes[1] ** 0.5).astype(np.float16).tobytes()
    write_safetensors(path, sizes, "F16", 2, piece)


def write_fp8(path: Path, sizes: tuple[int, ...]) -> None:
    import torch

    stored = torch.from_numpy(random(PIECE) * 16).to(torch.float8_e4m3fn)
    piece = stored.view(torch.uint8).numpy().tobytes()
    write_safetensors(path, sizes, "F8_E4M3", 1, piece, scale=sizes[1] ** -0.5 / 16)


def write_q8_0(path: Path, sizes: tuple[int, ...]) -> None:
    import gguf
    import numpy as np

    from gatekit_wan22 import layout_umt5

    kind = gguf.GGMLQuantizationType.Q8_0
    values = random(PIECE // 2).reshape(-1, 4096) / sizes[1] ** 0.5
    piece = gguf.quants.quantize(values, kind).tobytes()
    writer = gguf.GGUFWriter(path, "t5encoder")
    tensors = []
    for name, shape in layout_umt5.diffusers_to_gguf(shapes_of(sizes)).items():
        count = int(np.prod(shape))
        if "attn_rel_b" in name or "norm" in name:
            writer.add_tensor_info(name, shape, np.dtype(np.float32), 4 * count)
            tensors.append(np.ones(count, np.float32).tobytes())
            continue
        nbytes = count // 32 * 34
        stored = (*shape[:-1], shape[-1] // 32 * 34)
        writer.add_tensor_info(name, stored, np.dtype(np.uint8), nbytes, raw_dtype=kind)
        tensors.append(nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    assert writer.fout is not None
    stream = writer.fout[0]
    stream.write(b"\0" * (-stream.tell() % 32))
    for content in tensors:
        if isinstance(content, bytes):
            stream.write(content)
        else:
            stream.writelines(repeated(piece, content, 34))
        stream.write(b"\0" * (-stream.tell() % 32))
    writer.close()


def memory() -> dict[str, int]:
    lines = Path("/proc/self/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return {key: int(found[key].split()[0]) * 1024 for key in ("RssAnon", "VmRSS")}


def watched(action: Callable[[], None]) -> tuple[float, dict[str, float]]:
    """Seconds, and the highest private and resident memory in GB, the former as a rise."""
    before, highest, stop = memory(), memory(), threading.Event()

    def watch() -> None:
        while not stop.wait(0.01):
            now = memory()
            highest.update({key: max(highest[key], now[key]) for key in now})

    thread = threading.Thread(target=watch)
    thread.start()
    began = time.perf_counter()
    action()
    seconds = time.perf_counter() - began
    stop.set()
    thread.join()
    private = highest["RssAnon"] - before["RssAnon"]
    return seconds, {
        "private_GB": round(private / 1e9, 2),
        "resident_GB": round(highest["VmRSS"] / 1e9, 2),
    }


def drop_from_cache(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(path: Path, precision: str, threads: int) -> dict[str, object]:
    import torch

    from gatekit_wan22 import load_text_encoder, read_header
    from gatekit_wan22.sizes_umt5 import read_umt5_sizes
    from gatekit_wan22.tokenizer import clean

    clean("imports what cleaning needs")
    torch.set_num_threads(threads)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    sizes = read_umt5_sizes(read_header(path))
    inner = sizes.heads * sizes.head_dim
    weights = sizes.layers * (4 * sizes.dim * inner + 3 * sizes.dim * sizes.ffn_dim)
    flop = 2 * weights * sum(TOKENS)
    bound = sum(product_seconds(sizes.dim, sizes.ffn_dim, n, dtype) * weights for n in TOKENS)

    def encode() -> None:
        encoder = load_text_encoder(
            path, precision=precision, tokenizer=path.with_name("tokenizer.json"), keep="never"
        )
        out = encoder.embed(["a " * (n - 1) for n in TOKENS])
        assert out.shape[0] == len(TOKENS) and bool(out.isfinite().all())

    drop_from_cache(path)
    cold, _ = watched(encode)
    warm, used = watched(encode)
    return {
        "seconds": round(warm, 1),
        "cold": round(cold, 1),
        **used,
        "bound": round(bound, 1),
        "TFLOP": round(flop / 1e12, 2),
        "GB_stored": round(path.stat().st_size / 1e9, 2),
        "threads": threads,
    }


def products(sizes: tuple[int, ...], threads: int) -> None:
    """One product of 140 rows with a feed-forward matrix, in each precision."""
    import torch

    torch.set_num_threads(threads)
    for name in ("float32", "bfloat16", "float16"):
        seconds = product_seconds(sizes[1], sizes[2], 140, getattr(torch, name))
        line = {"product": name, "seconds": round(seconds * sizes[1] * sizes[2], 3)}
        print(json.dumps(line | {"threads": threads}), flush=True)


def product_seconds(dim: int, ffn: int, tokens: int, dtype: object) -> float:
    """Seconds a weight of one product of ``tokens`` rows with a matrix; the best of five."""
    import torch

    matrix, rows = torch.randn(ffn, dim).to(dtype), torch.randn(tokens, dim).to(dtype)
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        torch.nn.functional.linear(rows, matrix)
        best = min(best, time.perf_counter() - began)
    return best / (dim * ffn)


if __name__ == "__main__":
    main()
