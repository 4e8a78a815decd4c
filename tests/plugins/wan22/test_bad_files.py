"""Files that are wrong: one WeightsError each, naming the file and what to do."""

import json
import os
import struct

import gguf
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from gatekit import WeightsError
from gatekit_wan22 import GGUFVariant, load_text_encoder, load_vae, read_header
from gatekit_wan22.sizes import read_sizes


def check(path, match, tools):
    """Facts and load both refuse, before any weight is read."""
    variant = tools.open_file(path)
    with pytest.raises(WeightsError, match=match) as caught:
        variant.facts()
    assert str(path) in str(caught.value) and caught.value.remedy
    assert caught.value.exit_code == 2 and str(caught.value).isprintable()
    with pytest.raises(WeightsError):
        variant.load("cpu", "fp32")


@pytest.fixture
def good_gguf(wan, tools, tmp_path):
    return tools.write_gguf(tmp_path / "wan.gguf", wan.state)


@pytest.mark.parametrize("left", [0, 3, 12, 200, 5_000, 100_000, -1])
def test_truncated_gguf(left, good_gguf, tools, tmp_path):
    whole = good_gguf.read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole[:left])
    check(path, "truncated|needs more than|empty|neither|claims", tools)


@pytest.mark.parametrize("left", [0, 7, 100, 5_000, 100_000, -1])
def test_truncated_safetensors(left, wan, tools, tmp_path):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(wan.path.read_bytes()[:left])
    check(path, "truncated|empty|neither", tools)


def test_language_model_gguf(tools, tmp_path):
    path = tmp_path / "llama.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    for name in ("token_embd", "blk.0.attn_q", "blk.0.ffn_up", "output"):
        writer.add_tensor(f"{name}.weight", np.zeros((8, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    check(path, r"language model.*'llama'.*give the diffusion model of Wan", tools)


def test_wan_tensors_under_another_architecture(wan, tools, tmp_path):
    path = tools.write_gguf(tmp_path / "x.gguf", wan.state, arch="flux")
    check(path, "architecture 'flux'", tools)


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["double_blocks.0.img_attn.qkv.weight"], "Flux or Hunyuan"),
        (["decoder.conv1.weight"], "a VAE"),
        (["blocks.0.attn.q.weight"], "a text encoder"),
        (["blocks.0.self_attn.q.lora_A.weight"], "a LoRA"),
        (["some.weight"], "not a Wan diffusion model: 1 tensors, such as some.weight"),
        ([], "such as none"),
    ],
)
def test_other_models(names, match, tools, tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({name: torch.zeros(4, 4) for name in names}, path)
    check(path, match, tools)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("<!doctype html> you must log in to download this file\n", "a web page, no weights"),
        ("\n<HTML><body>", "a web page, no weights"),
        ("version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS.*git lfs pull"),
        ("weights\n", "neither a GGUF, a safetensors nor a .pth"),
    ],
)
def test_text_as_a_weight_file(text, match, tools, tmp_path):
    path = tmp_path / "wan.safetensors"
    path.write_text(text * 9)
    check(path, match, tools)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("blocks.0.self_attn.q.lora_A.weight", "a LoRA"),
        ("blocks.0.attn.q.weight", "a text encoder"),
    ],
)
def test_what_a_file_is_comes_before_its_format(name, match, tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({name: torch.zeros(4, 4)}, path)
    with pytest.raises(WeightsError, match=match):
        GGUFVariant(GGUFVariant.Params(file=path)).facts()


def test_pickled_checkpoint(tools, tmp_path):
    path = tmp_path / "wan.safetensors"
    torch.save({"head.modulation": torch.zeros(2)}, path)
    check(path, "without 'text_embedding|a pth file", tools)


def test_missing_file_and_folder(tools, tmp_path):
    check(tmp_path / "nowhere.gguf", "cannot be read: No such file", tools)
    (tmp_path / "folder.safetensors").mkdir()
    check(tmp_path / "folder.safetensors", "a folder", tools)


def test_a_file_of_the_other_format(wan, tools, tmp_path):
    path = tmp_path / "really-safetensors.gguf"
    path.write_bytes(wan.path.read_bytes())
    check(path, "a safetensors file; write 'use: safetensors'", tools)


def edited(wan, **changes):
    state = dict(wan.state)
    for name, value in changes.items():
        name = name.replace("__", ".")
        if value is None:
            state.pop(name)
        else:
            state[name] = value
    return state


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"blocks__1__ffn__0__bias": None}, "1 tensors are missing: blocks.1.ffn.0.bias"),
        ({"head__head__bias": None}, "without 'head.head.bias'"),
        ({"blocks__1__extra__weight": torch.zeros(1)}, "unexpected: blocks.1.extra.weight"),
        (
            {"blocks__1__ffn__0__weight": torch.zeros(4, 4)},
            r"shape \[4, 4\], expected \[512, 256\]",
        ),
        ({"blocks__3__ffn__0__bias": torch.zeros(512)}, "block 2 of 4 is missing"),
        ({"text_embedding__0__weight": torch.zeros(100, 32)}, "widths fit no Wan model"),
        ({"text_embedding__0__weight": torch.zeros(0, 32)}, "widths fit no Wan model"),
        ({"text_embedding__0__weight": torch.zeros(256)}, "1 dimensions, not 2"),
        ({"img_emb__proj__0__weight": torch.zeros(4)}, "CLIP's embedding of the image"),
        ({"head__head__bias": torch.zeros(64, dtype=torch.int32)}, "'head.head.bias' is I32"),
        ({"blocks__999999__x": torch.zeros(1)}, "block 2 of 1000000 is missing"),
    ],
)
def test_tensors_that_do_not_fit(changes, match, wan, tools, tmp_path):
    path = tmp_path / "edited.safetensors"
    save_file(edited(wan, **changes), path)
    check(path, match, tools)


def test_gguf_tensor_type_that_is_no_weight(wan, tools, tmp_path):
    path = tmp_path / "i.gguf"
    writer = gguf.GGUFWriter(path, "wan")
    for name, tensor in wan.state.items():
        array = tensor.numpy()
        writer.add_tensor(name, array.astype(np.int32) if name == "head.head.bias" else array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    check(path, "'head.head.bias' is I32, which cannot be decoded", tools)


def header_of(*, version=3, tensors=0, keys=0, body=b""):
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + body


def entry(name, shape, kind=0, offset=0):
    data = struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", len(shape))
    return data + struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", kind, offset)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (header_of(version=1), "GGUF version 1"),
        (header_of(version=0x03000000), "big-endian"),
        (header_of(tensors=1 << 60), "claims 1,152,921,504,606,846,976 tensors"),
        (header_of(keys=1 << 40), "claims"),
        (header_of(keys=1, body=struct.pack("<Q", 1 << 32) + b"x" * 64), "needs more than"),
        (header_of(keys=1, body=struct.pack("<Q1sI", 1, b"k", 99) + b"\0" * 32), "value type 99"),
        (
            header_of(keys=1, body=struct.pack("<Q1sIIQ", 1, b"k", 9, 8, 1 << 50) + b"\0" * 32),
            "claims .* strings",
        ),
        (
            header_of(keys=1, body=struct.pack("<Q1sIIQ", 1, b"k", 9, 9, 1) + b"\0" * 32),
            "array type 9",
        ),
        (header_of(tensors=1, body=entry("a", [1 << 62, 1 << 62]) + b"\0" * 64), "truncated"),
        (header_of(tensors=1, body=entry("a", [4], offset=1 << 63) + b"\0" * 64), "truncated"),
        (header_of(tensors=1, body=entry("a", [4], kind=200) + b"\0" * 64), "type 200"),
        (header_of(tensors=1, body=entry("a", [255], kind=10) + b"\0" * 900), "no multiple of 256"),
        (header_of(tensors=1, body=entry("a\n\x1b[1m", [4]) + b"\0" * 64), r"such as a\?\?\[1m"),
        (header_of(tensors=1, body=entry("a", [1] * 9) + b"\0" * 64), "9 dimensions"),
        (header_of(tensors=2, body=entry("a", [4]) * 2 + b"\0" * 64), "occurs twice"),
    ],
)
def test_gguf_headers_that_lie(content, match, tools, tmp_path):
    path = tmp_path / "lie.gguf"
    path.write_bytes(content)
    check(path, match, tools)


@pytest.mark.parametrize(
    ("header", "match"),
    [
        (b"[1]", "neither"),
        (b"{not json", "no JSON object"),
        (b'{"__metadata__": [1]}', "metadata is no object"),
        (b'{"a": 1}', "malformed"),
        (b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0]}}', "malformed"),
        (b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 9999999]}}', "truncated"),
        (b'{"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}', "malformed"),
        (b'{"a": {"dtype": "F32", "shape": [5], "data_offsets": [0, 16]}}', "has 16 bytes"),
        (b'{"a": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 16]}}', "malformed"),
        (b'{"a":' * 5000, "no JSON object"),
    ],
)
def test_safetensors_headers_that_lie(header, match, tools, tmp_path):
    path = tmp_path / "lie.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 64)
    check(path, match, tools)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(at=st.integers(0, 4000), byte=st.integers(0, 255))
def test_any_changed_byte_is_read_or_refused(at, byte, good_gguf, tmp_path):
    """A damaged header never ends in another exception."""
    content = bytearray(good_gguf.read_bytes())
    content[at] = byte
    path = tmp_path / "damaged.gguf"
    path.write_bytes(content)
    try:
        read_sizes(read_header(path))
    except WeightsError as error:
        assert str(path) in str(error)


def test_wrong_roles(wan, tmp_path):
    with pytest.raises(WeightsError, match="not a Wan VAE"):
        load_vae(wan.path)
    with pytest.raises(WeightsError, match="not a UMT5 text encoder"):
        load_text_encoder(wan.path)
    path = tmp_path / "vae22.safetensors"
    save_file({"encoder.downsamples.0.downsamples.0.residual.0.gamma": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="not a Wan VAE: 1 tensors"):
        load_vae(path)


def test_header_equals_gguf_py(wan, tools, tmp_path):
    """The reader here agrees with gguf-py's on names, shapes, types, places and metadata."""
    path = tools.write_gguf(
        tmp_path / "q.gguf",
        wan.state,
        lambda n, t: "Q6_K" if tools.is_matrix(n) else "BF16",
        strings=[("general.name", "näme"), ("a.list", json.dumps([1, 2]))],
    )
    mine, theirs = read_header(path), gguf.GGUFReader(path)
    assert mine.metadata["general.name"] == "näme"
    assert len(mine.tensors) == len(theirs.tensors)
    for tensor in theirs.tensors:
        info = mine.tensors[tensor.name]
        assert info.shape == tuple(int(n) for n in tensor.shape[::-1])
        assert info.type == tensor.tensor_type.name
        assert (info.offset, info.nbytes) == (tensor.data_offset, tensor.n_bytes)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "wan.gguf")
    with pytest.raises(WeightsError, match="cannot be read: a pipe, a device or a folder"):
        read_header(tmp_path / "wan.gguf")


def entry(kind, shape, begin, end):
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize("kind", ["Q2_K", "\x1b[2Jx\n", "", "F" * 1000])
def test_a_type_that_is_none_of_safetensors(tmp_path, kind):
    """Of GGUF's types the bytes were not checked; others steered the terminal that showed them."""
    header = json.dumps({"a": entry(kind, [256, 4], 0, 16)}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    with pytest.raises(WeightsError, match="which this version does not know") as caught:
        read_header(path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


def test_more_tensors_than_any_model_has(tmp_path):
    header = json.dumps({f"t{i}": entry("F16", [0], 0, 0) for i in range(20_001)}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(WeightsError, match="more than any model has"):
        read_header(path)
