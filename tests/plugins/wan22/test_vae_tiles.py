"""Tiles: cut by size alone, and joined without a seam."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import gatekit
from gatekit import InputError, ScheduleError
from gatekit_wan22 import layout_vae, load_vae, vae_stream, vae_tiles
from gatekit_wan22 import vae as module
from gatekit_wan22.sizes_parts import VAESizes
from gatekit_wan22.vae import empty_vae
from gatekit_wan22.vae_tiles import Grid, grid, spans

GIB = 1 << 30
VAE_21 = VAESizes(96, 96, 16, (1, 2, 4, 4), 2, (False, True, True))
VAE_22 = VAESizes(160, 256, 48, (1, 2, 4, 4), 2, (False, True, True), True, 2)


@given(st.integers(1, 60), st.data(), st.integers(0, 9))
def test_cores_fill_the_axis(length, data, border):
    cut = spans(length, data.draw(st.integers(1, length)), border)
    assert [n for s in cut for n in range(s.start, s.stop)] == list(range(length))
    sizes = {s.stop - s.start for s in cut}
    assert max(sizes) - min(sizes) <= 1
    for s in cut:
        assert s.start - s.low == min(border, s.start)
        assert s.high - s.stop == min(border, length - s.stop)
        assert list(range(s.low, s.high))[s.core] == list(range(s.start, s.stop))


@pytest.fixture(scope="module", params=["2.1", "2.2"])
def vae(request, tmp_path_factory):
    """A small VAE that never takes all frames at once, a video and a latent of 11 x 18 cells."""
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    more = {"is_residual": True, "in_channels": 12, "out_channels": 12, "patch_size": 2}
    model = AutoencoderKLWan(
        base_dim=4,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        **(more if request.param == "2.2" else {}),
    )
    path = tmp_path_factory.mktemp("tiles") / "vae.safetensors"
    save_file(layout_vae.diffusers_to_official(model.state_dict()), path)
    found = load_vae(path, tile="never")
    cell = found.sizes.spatial_stride
    generator = torch.Generator().manual_seed(1)
    video = torch.rand(1, 3, 5, 11 * cell, 18 * cell, generator=generator) * 2 - 1
    latent = torch.randn(1, 16, 3, 11, 18, generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WHOLE_CLIP", 0)
        yield SimpleNamespace(
            vae=found, path=path, video=video, latent=latent,
            encoded=found.encode(video), decoded=found.decode(latent),
        )  # fmt: skip


@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (2, 3), (11, 1)])
def test_tiles_give_what_whole_frames_give(rows, columns, vae):
    sizes, model = vae.vae.sizes, vae.vae.model

    def tiles(border):
        return Grid(spans(11, rows, border), spans(18, columns, border))

    def decoded(border):
        z = vae.latent * vae.vae.std + vae.vae.mean
        return (vae_stream.decode(model, sizes, z, tiles(border)) - vae.decoded).abs().max()

    def encoded(border):
        mean = vae_stream.encode(model, sizes, vae.video, tiles(border))
        return ((mean - vae.vae.mean) / vae.vae.std - vae.encoded).abs().max()

    with torch.no_grad():
        for error, border in (
            (decoded, vae_tiles.decoding_border(sizes)),
            (encoded, vae_tiles.encoding_border(sizes)),
        ):
            assert error(border) < 5e-6
            assert error(border - 2) > 1e-4  # narrower borders would leave seams


def test_pixels_a_tile_may_measure(vae):
    sizes = vae.vae.sizes
    least = vae_tiles.least_tile(sizes)
    tiled = load_vae(vae.path, tile=least + 3 * sizes.spatial_stride)
    assert len(tiled.tiles(11, 18, decoding=True)) > 4
    for decoding in (True, False):
        cut = tiled.tiles(11, 18, decoding=decoding)
        sides = [(s.high - s.low) * sizes.spatial_stride for s in (*cut.rows, *cut.columns)]
        assert max(sides) <= tiled.tile
    assert (tiled.decode(vae.latent) - vae.decoded).abs().max() < 5e-6
    with pytest.raises(InputError, match=f"at least {least} pixels"):
        load_vae(vae.path, tile=least - 1).decode(vae.latent)


@pytest.mark.parametrize("sizes", [VAE_21, VAE_22], ids=["2.1", "2.2"])
@pytest.mark.parametrize("item", [4, 2])
@pytest.mark.parametrize("decoding", [True, False])
def test_auto_goes_by_size(sizes, item, decoding):
    cell = sizes.spatial_stride
    cut = grid(720 // cell, 1280 // cell, sizes, item, "auto", decoding=decoding)
    largest = max(s.high - s.low for s in cut.rows) * max(s.high - s.low for s in cut.columns)
    assert largest * vae_tiles.tile_bytes(sizes, item, decoding=decoding) <= vae_tiles.TILE_BYTES
    assert len(cut) > 1
    small = grid(256 // cell, 256 // cell, sizes, item, "auto", decoding=decoding)
    assert len(small) == 1
    never = grid(720 // cell, 1280 // cell, sizes, item, "never", decoding=decoding)
    assert len(never) == 1


@pytest.mark.parametrize("sizes", [VAE_21, VAE_22], ids=["2.1", "2.2"])
def test_1280x720x81_decodes_in_8_gib(sizes):
    """In float32: all weights, what enters the first upsampling, the video, and one tile."""
    model = empty_vae(sizes)
    weights = 4 * sum(p.numel() for p in model.parameters())
    cells, frames = 720 * 1280 // sizes.spatial_stride**2, 21
    kept = 2 if sizes.residual else 1
    coarse = 4 * kept * frames * cells * sizes.decoder_base_dim * sizes.dim_mult[-1]
    video = 4 * 3 * 81 * 720 * 1280
    assert weights + coarse + video + vae_tiles.TILE_BYTES < 7.6 * GIB


def test_what_enters_the_first_upsampling(vae):
    """The count above: one tensor of the coarsest width, and a second one for 2.2's shortcut."""
    with torch.no_grad():
        coarse = vae_stream._coarse(vae.vae.model, vae.latent)
    width = vae.vae.sizes.decoder_base_dim * vae.vae.sizes.dim_mult[-1]
    assert len(coarse) == (2 if vae.vae.sizes.residual else 1)
    assert all(c.shape == (1, width, 3, 11, 18) for c in coarse)


def schedule(tile, file):
    return gatekit.Schedule.from_dict(
        {
            "version": 1,
            "name": "tiles",
            "family": {"use": "wan22"},
            "text_encoder": {"file": "none.safetensors"},
            "vae": {"file": str(file), "tile": tile},
            "variants": {"high": {"use": "safetensors", "file": "none.safetensors"}},
            "sigmas": {"use": "shifted_linear", "steps": 4},
            "phases": [{"name": "all", "variant": "high", "sampler": "euler"}],
        }
    )


@pytest.mark.parametrize("tile", ["auto", "never", 512])
def test_a_schedule_says_it(tile):
    plan = gatekit.resolve(schedule(tile, "none.safetensors"))
    assert plan.family.components.vae.tile == tile


@pytest.mark.parametrize("tile", ["small", 0, -5, True, 1.5, {"height": 8}])
def test_a_schedule_says_it_wrongly(tile, vae):
    with pytest.raises(ScheduleError, match=r"vae\.tile"):
        schedule(tile, vae.path)
