"""Every metric: perfect on truth, worse the stronger a corruption that it claims to see."""

import math

import pytest
import torch

import gatekit
from gatekit import InputError, Metric, Sample
from gatekit_research.corruptions import CORRUPTIONS
from gatekit_research.metrics import METRICS
from gatekit_research.metrics.flicker import Flicker
from gatekit_research.metrics.likeness import PSNR, SSIM, LatentRMSE
from gatekit_research.metrics.spectra import SpatialSpectrum, TemporalSpectrum
from gatekit_tinywan.caption_metric import CaptionMatch
from gatekit_tinywan.world import HELD_OUT_SEED, render, sample_scenes

CLIPS = 4
STRENGTHS = {
    "blur": (0.7, 2.0, 5.0),
    "noise": (0.01, 0.04, 0.12),
    "shuffle": (0.2, 0.45, 0.8),
    "drop": (0.1, 0.3, 0.8),
    "colour_shift": (0.1, 0.3, 0.6),
    "still": (0.5, 0.8, 1.0),
}
OF_FRAMES = [m for m in (*METRICS, CaptionMatch) if "video" in m.needs]


@pytest.fixture(scope="module")
def clips():
    scenes = sample_scenes(HELD_OUT_SEED, range(CLIPS), split="held_out")
    return list(zip(render(scenes).permute(0, 2, 3, 4, 1), scenes.captions(), strict=True))


def mean(cls, clips, change=lambda video: video):
    values = []
    for video, caption in clips:
        sample = Sample(video=change(video), prompt=caption, reference=Sample(video=video))
        value = cls().measure(sample)
        values.append(value if isinstance(value, float) else value["all_right"])
    return sum(values) / len(values)


@pytest.mark.parametrize("cls", OF_FRAMES, ids=lambda c: c.name)
def test_perfect_on_truth(cls, clips):
    assert mean(cls, clips) == pytest.approx(cls.perfect, abs=4e-3)


@pytest.mark.parametrize(
    ("cls", "corruption"),
    [(c, k) for c in OF_FRAMES for k in sorted(c.detects)],
    ids=lambda v: getattr(v, "name", v),
)
def test_worse_with_every_step_of_a_corruption_it_detects(cls, corruption, clips):
    change = CORRUPTIONS[corruption]
    values = [mean(cls, clips, lambda video, s=s: change(video, s)) for s in STRENGTHS[corruption]]
    worse = [-v for v in values] if cls.higher_is_better else values
    truth = -cls.perfect if cls.higher_is_better else cls.perfect
    assert worse == sorted(worse), values
    assert worse[0] >= truth - 1e-6
    assert worse[-1] > truth + 0.02 * max(1.0, abs(truth)), values


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
def test_strength_0_changes_nothing_and_more_changes_more(name, clips):
    video = clips[0][0]
    change = CORRUPTIONS[name]
    apart = [float((change(video, s) - video).square().mean()) for s in (0.0, *STRENGTHS[name])]
    assert apart[0] < 1e-10 and apart == sorted(apart) and apart[-1] > 1e-5


def test_every_corruption_is_seen_by_some_metric():
    seen = {name for cls in OF_FRAMES for name in cls.detects}
    assert seen == set(CORRUPTIONS) == set(STRENGTHS)


def test_a_still_clip_is_the_worst_of_flicker(clips):
    video = clips[0][0]
    assert Flicker().measure(Sample(video=video[:1].expand_as(video))) == 1.0
    flashing = video + 0.1 * torch.tensor([(-1.0) ** i for i in range(25)])[:, None, None, None]
    assert Flicker().measure(Sample(video=flashing)) > 0.7


def test_psnr_and_ssim_of_known_values():
    flat = torch.full((2, 32, 32, 3), 0.5)
    sample = Sample(video=flat + 0.1, reference=Sample(video=flat))
    assert PSNR().measure(sample) == pytest.approx(20.0, abs=1e-4)
    wanted = (2 * 0.5 * 0.6 + 1e-4) / (0.5**2 + 0.6**2 + 1e-4)  # no variance: luminance alone
    assert SSIM().measure(sample) == pytest.approx(wanted, abs=1e-4)


def test_the_spatial_spectrum_of_halved_contrast_is_6_db(clips):
    video = clips[0][0]
    mean_of_frames = video.mean((1, 2), keepdim=True)
    half = mean_of_frames + 0.5 * (video - mean_of_frames)
    found = SpatialSpectrum().measure(Sample(video=half, reference=Sample(video=video)))
    assert found == pytest.approx(20 * math.log10(2), abs=0.2)


def test_latents_and_divergence():
    latent = torch.zeros(2, 1, 4, 4)
    sample = Sample(latent=latent + 2.0, reference=Sample(latent=latent))
    assert LatentRMSE().measure(sample) == 2.0
    (divergence,) = (m() for m in METRICS if m.name == "x0_divergence")
    fine = [(s / 10, torch.full((1, 3), s / 10)) for s in range(10, -1, -1)]
    own = [(s, torch.full((1, 3), s + 0.5 * s)) for s in (1.0, 0.45, 0.05)]
    sample = Sample(trace=own, reference=Sample(trace=fine))
    curve = divergence.curve(sample)
    assert [s for s, _ in curve] == [1.0, 0.45, 0.05]
    assert [v for _, v in curve] == pytest.approx([0.5, 0.225, 0.025])
    assert divergence.measure(sample) == pytest.approx(0.5 * 0.525)
    assert divergence.measure(Sample(trace=fine, reference=Sample(trace=fine))) == 0.0


def test_what_lacks_is_told():
    with pytest.raises(InputError, match="needs a reference"):
        PSNR().measure(Sample(video=torch.zeros(2, 4, 4, 3)))
    small, large = torch.zeros(2, 4, 4, 3), torch.zeros(2, 8, 8, 3)
    with pytest.raises(InputError, match="another size"):
        SSIM().measure(Sample(video=small, reference=Sample(video=large)))
    image = torch.rand(1, 8, 8, 3)
    with pytest.raises(InputError, match="over time needs 4 frames"):
        TemporalSpectrum().measure(Sample(video=image, reference=Sample(video=image)))
    with pytest.raises(InputError, match="canonical captions"):
        CaptionMatch().check_prompt("a cat")


def test_the_built_in_metrics_are_offered():
    offered = gatekit.list_metrics()
    assert {m.name for m in METRICS} | {"caption"} <= set(offered)
    assert all(issubclass(m, Metric) and m.__doc__ for m in offered.values())
    assert gatekit.find_metric("ssim") is SSIM
    with pytest.raises(gatekit.PluginError, match="did you mean 'ssim'"):
        gatekit.find_metric("sssim", where="sweep.yaml:3:4")
