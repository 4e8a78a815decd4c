"""Headers of saved latents are read within bounds."""

import json
import struct

import pytest

from gatekit.latent import is_latent
from gatekit.safeheader import LONGEST, read_header, read_metadata


def written(path, header, length=None):
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header)
    return path


def test_metadata(tmp_path):
    header = json.dumps({"__metadata__": {"comment": "a"}, "latent": {}}).encode()
    path = written(tmp_path / "a.safetensors", header)
    assert read_metadata(path, "comment") == "a"
    assert read_metadata(path, "other") == ""
    assert is_latent(path)


@pytest.mark.parametrize(
    ("header", "length"),
    [
        (b"{}", LONGEST + 1),
        (b"{}", 1 << 63),
        (b"{}", 3),
        (b"[" * 100_000, None),
        (b"[]", None),
        (b"\xff\xfe", None),
        (b"", None),
    ],
)
def test_what_is_no_header(tmp_path, header, length):
    path = written(tmp_path / "a.safetensors", header, length)
    with pytest.raises(ValueError, match=r"header|utf|codec|Expecting"):
        read_header(path)
    assert not is_latent(path)


@pytest.mark.parametrize("metadata", [[], 3, None, {"comment": 3}])
def test_metadata_of_another_kind(tmp_path, metadata):
    path = written(tmp_path / "a.safetensors", json.dumps({"__metadata__": metadata}).encode())
    assert read_metadata(path, "comment") == ""
