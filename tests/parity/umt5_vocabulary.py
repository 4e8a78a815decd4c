"""gatekit's tokenizers beside SentencePiece and tokenizers, on UMT5's real vocabulary.

    pip download --no-deps --no-binary :all: stable-diffusion-cpp-python
    tar xzf stable_diffusion_cpp_python-*.tar.gz
    pip install sentencepiece protobuf
    python tests/parity/umt5_vocabulary.py $(find stable_diffusion_cpp_python-* -name umt5.hpp)

The argument is a ``tokenizer.json`` of UMT5, or that package's C header of its bytes. The
vocabulary (256,300 pieces, 9 MB) is not part of this repository. From it this writes a
``spiece.model`` and a GGUF as llama.cpp's converter does, into a temporary folder, and
counts texts whose ids differ: gatekit on each of the three, SentencePiece itself on the
second, tokenizers itself on the first.
"""

from __future__ import annotations

import json
import random
import re
import sys
import tempfile
import time
import unicodedata
from pathlib import Path

import gguf
import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as proto
from tokenizers import Tokenizer

from gatekit_wan22.family import NEGATIVE_PROMPT
from gatekit_wan22.gguf_tokenizer import read_gguf_tokenizer
from gatekit_wan22.sentencepiece_file import read_sentencepiece
from gatekit_wan22.tokenizer import clean
from gatekit_wan22.unigram import build_tokenizer

ROWS = 256384  # of the embedding; llama.cpp's converter fills up with unused pieces

WRITTEN = [
    NEGATIVE_PROMPT,
    "Two anthropomorphic cats in comfy boxing gear fight on a spotlighted stage.",
    "夏日海滩度假风格，一只戴着墨镜的白色猫咪坐在冲浪板上。",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. Ça alors, où est l'œuvre ?",
    "カメラがゆっくりとズームインする。桜の花びらが舞い散る夜。",
    "Съешь же ещё этих мягких французских булок, да выпей чаю",
    "שלום עולם, مرحبا بالعالم، नमस्ते दुनिया, สวัสดีชาวโลก, 안녕하세요 세계",
    "emoji 🦊🎬🏳️‍🌈 👩‍👩‍👧‍👦 and “curly” ‘quotes’ … ﬁ ① ㎡ ｆｕｌｌ　ｗｉｄｔｈ",
    "first line\nsecond line\r\n\tand a tab   and   spaces",
    "&lt;b&gt;HTML &amp;amp; escapes&lt;/b&gt; 100% $5.00 #tag @name https://a.b/c?d=e",
    "cafe\u0301 na\u0131\u0308ve Z\u0351\u036b\u0343\u036aa\u0348l\u0358g\u0321o",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𓀀 ꧁༺ 🂡 \U0001fae8",
    "x" * 300,
    "",
]
SCRIPTS = [(0x20, 0x7F), (0xA0, 0x250), (0x370, 0x530), (0x590, 0x700), (0x900, 0xE80),
           (0x2000, 0x2C00), (0x3040, 0x3100), (0x4E00, 0x9FA0), (0xAC00, 0xD7A0),
           (0x1F300, 0x1FB00)]  # fmt: skip


def texts(count: int, seed: int = 0) -> list[str]:
    """Written ones, and random strings of each script and of all mixed; cleaned as prompts are."""
    rng = random.Random(seed)
    out = list(WRITTEN)
    for i in range(count):
        ranges = SCRIPTS if i % 2 else [SCRIPTS[i // 2 % len(SCRIPTS)]]
        word = lambda ranges=ranges: "".join(  # noqa: E731
            chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randint(1, 9))
        )
        text = " ".join(word() for _ in range(rng.randint(1, 12)))
        out.append("".join(c for c in text if unicodedata.category(c) not in ("Cn", "Cs")))
    return [clean(text) for text in out]


def read_json(path: Path) -> str:
    content = path.read_bytes()
    if content[:1] != b"{":  # a C array
        content = bytes(int(n, 16) for n in re.findall(rb"0x([0-9a-fA-F]{2})", content))
    return content.decode("utf-8")


def kind_of(piece: str, i: int, unknown: int) -> int:
    """SentencePiece's type: 1 normal, 2 unknown, 3 control, 6 byte."""
    if i == unknown:
        return 2
    if re.fullmatch(r"<0x[0-9A-F]{2}>", piece):
        return 6
    return 3 if piece in ("<pad>", "</s>", "<s>") else 1


def write_spiece(path: Path, vocabulary: list[list], unknown: int) -> None:
    model = proto.ModelProto()
    for i, (piece, score) in enumerate(vocabulary):
        model.pieces.add(piece=piece, score=score, type=kind_of(piece, i, unknown))
    model.trainer_spec.model_type = 1
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.unk_id, model.trainer_spec.bos_id = unknown, -1
    model.trainer_spec.pad_id, model.trainer_spec.eos_id = 0, 1
    model.normalizer_spec.name = "identity"
    path.write_bytes(model.SerializeToString())


def write_gguf(path: Path, vocabulary: list[list], unknown: int) -> None:
    padding = range(len(vocabulary), ROWS)
    writer = gguf.GGUFWriter(path, "t5encoder")
    writer.add_tokenizer_model("t5")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(
        [*(p.encode() for p, _ in vocabulary), *(b"[PAD%d]" % i for i in padding)]
    )
    writer.add_token_scores([*(s for _, s in vocabulary), *(-1000.0 for _ in padding)])
    kinds = [kind_of(p, i, unknown) for i, (p, _) in enumerate(vocabulary)]
    writer.add_token_types([*kinds, *(5 for _ in padding)])
    writer.add_add_space_prefix(True)
    writer.add_remove_extra_whitespaces(True)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    content = read_json(Path(sys.argv[1]))
    model = json.loads(content)["model"]
    unknown = model["unk_id"]
    # Two pieces are empty there, which SentencePiece refuses: stand-ins that no text has.
    vocabulary = [[piece or f"\ue000{i}", score] for i, (piece, score) in enumerate(model["vocab"])]
    print(f"{len(vocabulary):,} pieces, unknown {unknown}")
    theirs_json = Tokenizer.from_str(content)
    with tempfile.TemporaryDirectory() as folder:
        spiece, metadata = Path(folder) / "spiece.model", Path(folder) / "umt5.gguf"
        write_spiece(spiece, vocabulary, unknown)
        write_gguf(metadata, vocabulary, unknown)
        theirs_spiece = sentencepiece.SentencePieceProcessor(model_file=str(spiece))
        began = time.perf_counter()
        ours_gguf = build_tokenizer(read_gguf_tokenizer(metadata))
        print(f"tokenizer from GGUF metadata in {time.perf_counter() - began:.1f} s")
        ours_spiece = build_tokenizer(read_sentencepiece(spiece.read_bytes()))
    count = equal_file = equal_gguf = ties = outside = same_as_json = 0
    for text in texts(4000):
        wanted = [*theirs_spiece.encode(text), 1]
        found, from_file = ours_gguf.encode(text).ids, ours_spiece.encode(text).ids
        by_json = theirs_json.encode(text).ids
        count += 1
        equal_gguf += found == wanted
        equal_file += from_file == wanted
        if found != wanted:
            ours, best = (
                sum(theirs_spiece.get_score(i) for i in ids if i < len(vocabulary))
                for ids in (found, wanted)
            )
            ties += abs(ours - best) < 1e-3
        if unknown in by_json:
            outside += 1
        else:
            same_as_json += found == by_json
    print(f"{count} texts")
    print(f"ids equal to SentencePiece's: GGUF metadata {equal_gguf}, spiece.model {equal_file}")
    print(f"of the others, of equal score: {ties}")
    print(
        f"texts within the vocabulary: {count - outside}, ids equal to tokenizers' on the "
        f"tokenizer.json: {same_as_json}"
    )


if __name__ == "__main__":
    main()
