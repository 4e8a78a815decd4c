"""``.pth`` files: read as torch reads them, and never run."""

import pickle
import struct
import zipfile

import pytest
import torch

from gatekit import WeightsError
from gatekit_wan22 import PthVariant, WanConditioning, read_header
from gatekit_wan22.mapped import MappedFile
from gatekit_wan22.pickle_reader import read_pickle
from gatekit_wan22.pth_file import ALLOWED


def equal_bytes(a, b):
    """The same type, shape and bits, NaN included."""
    bits = [t.reshape(-1).contiguous().view(torch.uint8) for t in (a, b)]
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(*bits)


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2],
)
def test_tensors_are_those_torch_reads(dtype, tmp_path):
    base = torch.randn(7, 12).to(dtype)
    state = torch.nn.Linear(5, 3).state_dict() | {
        "parameter": torch.nn.Parameter(base.clone(), requires_grad=False),
        "matrix": base,
        "view of its rows": base[2:5],
        "one number": base[0, 0],
        "none": base[:0],
    }
    path = tmp_path / "m.pth"
    torch.save(state, path)
    theirs = torch.load(path, weights_only=True)
    header = read_header(path)
    mapped = MappedFile(header)
    assert header.format == "pth" and header.tensors.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert equal_bytes(mapped.read(header.tensors[name], tensor.dtype), tensor.detach())


@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
def test_a_transformer(wrap, wan, tools, inputs, tmp_path):
    path = tmp_path / "wan.pth"
    state = {n: t.half() for n, t in wan.state.items()}
    torch.save({wrap: state, "step": 3} if wrap else state, path)
    values = tmp_path / "values.safetensors"
    from safetensors.torch import save_file

    save_file(state, values)
    found, wanted = PthVariant(PthVariant.Params(file=path)), tools.open_file(values)
    assert found.facts().storage == "fp16" and found.files() == (path,)
    for each in (found, wanted):
        each.load("cpu", "fp32")
    conditioning = WanConditioning(text=inputs.text)
    assert torch.equal(
        found.velocity(inputs.x, inputs.sigma, conditioning),
        wanted.velocity(inputs.x, inputs.sigma, conditioning),
    )


def test_whole_modules_are_refused(tmp_path):
    path = tmp_path / "m.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(WeightsError, match=r"would run code.*torch\.nn\.modules\.linear"):
        read_header(path)


class Hostile:
    """Leaves a file behind where its pickle is run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_code_is_never_run(tmp_path):
    left = tmp_path / "left behind"
    path = tmp_path / "m.pth"
    torch.save({"a": torch.zeros(2), "b": Hostile(left)}, path)
    with pytest.raises(WeightsError, match=r"would run code.*io\.open") as caught:
        read_header(path)
    assert not left.exists() and str(path) in str(caught.value)
    with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
        name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
        pickle.Unpickler(archive.open(name), encoding="utf-8")  # the file is what it says
    assert b"open" in path.read_bytes()


@pytest.mark.parametrize(
    "name", ["builtins eval", "os system", "torch hub", "collections OrderedDicts", "a\\nb c"]
)
def test_every_other_name_is_forbidden(name):
    content = b"\x80\x02c" + "\n".join(name.split(" ")).encode() + b"\n."
    with pytest.raises(ValueError):
        read_pickle(content, ALLOWED)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x02.",
        b"\x80\x02}q\x00h\x07.",  # a memo that was never put
        b"\x80\x02}\x85K\x01s.",  # an item of a tuple
        b"\x80\x02)K\x01R.",  # a call of a number
        b"\x80\x02}(t.",
        b"\x80\x02t.",
        b"\x80\x02}K\x01a.",
        b"\x80\x02c__builtin__\neval\n.",
        b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x8c\x06system\x93.",
        b"\x80\x02X\xff\xff\xff\xffabc.",
        b"(lp0\ng0\na.",
    ],
)
def test_pickles_that_make_no_sense(content):
    with pytest.raises(ValueError):
        read_pickle(content, ALLOWED)


def test_a_dict_of_itself_and_keys_that_take_for_ever():
    assert set(read_pickle(b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.", ALLOWED)) == {"a"}
    nested = b"\x80\x02}" + b")" + b"q\x00h\x00\x86" * 60 + b"K\x01s."
    with pytest.raises(ValueError, match="keys that are no names"):
        read_pickle(nested, ALLOWED)


def rewrite(source, target, change):
    """The archive again, entry by entry, uncompressed as torch has it unless changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            for name, content, how in change(info.filename, old.read(info)):
                new.writestr(zipfile.ZipInfo(name), content, compress_type=how)


STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
CHANGES = {
    "no pickle": (
        lambda n, c: [] if n.endswith("data.pkl") else [(n, c, STORED)],
        "without data.pkl",
    ),
    "compressed": (lambda n, c: [(n, c, DEFLATED)], "is compressed"),
    "big-endian": (
        lambda n, c: [(n, b"big" if n.endswith("byteorder") else c, STORED)],
        "big-endian",
    ),
    "a storage missing": (
        lambda n, c: [] if n.endswith("data/1") else [(n, c, STORED)],
        "'bias' is malformed",
    ),
    "a storage cut": (
        lambda n, c: [(n, c[:4] if n.endswith("data/0") else c, STORED)],
        "'weight' needs 24 of its 4 bytes",
    ),
    "pickle cut": (
        lambda n, c: [(n, c[:90] if n.endswith("data.pkl") else c, STORED)],
        "damaged .pth",
    ),
    "pickle too long": (
        lambda n, c: [(n, bytes(17 << 20) if n.endswith("data.pkl") else c, STORED)],
        "longer than any model's",
    ),
    "twice": (
        lambda n, c: [(n, c, STORED), (n.replace("m/", "n/"), c, STORED)],
        "occurs twice",
    ),
}


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "m.pth"
    torch.save(torch.nn.Linear(2, 3).state_dict(), path)
    return path


@pytest.mark.parametrize("case", CHANGES)
def test_archives_that_are_wrong(case, small, tmp_path):
    change, match = CHANGES[case]
    path = tmp_path / "wrong.pth"
    rewrite(small, path, change)
    with pytest.raises(WeightsError, match=match) as caught:
        read_header(path)
    assert str(path) in str(caught.value) and caught.value.remedy


@pytest.mark.parametrize("left", [10, 300, 900, -1, -30])
def test_truncated(left, small, tmp_path):
    path = tmp_path / "cut.pth"
    path.write_bytes(small.read_bytes()[:left])
    with pytest.raises(WeightsError, match="archive cannot be read"):
        read_header(path)


def test_any_changed_byte_is_read_or_refused(small, tmp_path):
    content = small.read_bytes()
    path = tmp_path / "damaged.pth"
    for at in range(0, len(content), 3):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        try:
            read_header(path)
        except WeightsError as error:
            assert str(path) in str(error)


def test_transposed_and_legacy(tmp_path):
    path = tmp_path / "m.pth"
    torch.save({"a": torch.zeros(4, 3).t()}, path)
    with pytest.raises(WeightsError, match="'a' is not stored row by row"):
        read_header(path)
    torch.save({"a": torch.zeros(4)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(WeightsError, match=r"before version 1\.6.*save it again"):
        read_header(path)
    torch.save([torch.zeros(4)], path)
    with pytest.raises(WeightsError, match="without tensors by name"):
        read_header(path)


def test_a_directory_that_claims_gigabytes(small, tmp_path):
    """The end record says where the directory is and how long; neither is believed."""
    content = bytearray(small.read_bytes())
    at = content.rfind(b"PK\x05\x06")
    content[at + 12 : at + 16] = struct.pack("<I", 0xFFFFFFF0)
    at = content.rfind(b"PK\x06\x06")  # of zip64, which comes first where it is there
    content[at + 40 : at + 48] = struct.pack("<Q", 1 << 40)
    path = tmp_path / "long.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="archive cannot be read"):
        read_header(path)
