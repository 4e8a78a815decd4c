"""Which kinds of image are opened: none that runs a program."""

import os
import sys

import pytest

from gatekit import InputError
from gatekit_wan22.image import check_image

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 16 16
%%EndComments
showpage
%%EOF
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a script stands in for Ghostscript")
def test_ghostscript_is_not_run_for_an_image(tmp_path, monkeypatch):
    marker, image = tmp_path / "ran", tmp_path / "frame.png"
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho > {marker}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    image.write_bytes(EPS)
    with pytest.raises(InputError, match="not a readable image"):
        check_image(image)
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_what_photographs_come_as(tmp_path, kind):
    from PIL import Image

    Image.new("RGB", (16, 16), "red").save(tmp_path / "a", kind)
    check_image(tmp_path / "a")
