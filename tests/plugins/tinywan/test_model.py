"""Untrained weights of the shipped sizes, exported, opened again and run."""

import numpy as np
import pytest
import torch

import gatekit
from gatekit_tinywan.vocabulary import TEXT_LENGTH, build_tokenizer, encode_ids
from gatekit_tinywan.world import VOCABULARY

SCHEDULE = """\
version: 1
name: tiny
family: {use: tinywan}
text_encoder: {file: tinywan_umt5_fp16.safetensors}
vae: {file: tinywan_vae_fp16.safetensors}
variants:
  high-q2k: {use: gguf, expert: high, file: tinywan_high_Q2_K.gguf}
  high-q5ks: {use: gguf, expert: high, file: tinywan_high_Q5_K_S.gguf}
  low: {use: safetensors, expert: low, file: tinywan_low_fp16.safetensors}
video: {width: 32, height: 32, frames: 5}
sigmas: {use: shifted_linear, steps: 3, shift: 5.0}
device: cpu
phases:
  - {name: commit, until: 0.95, variant: high-q2k, sampler: unipc, guidance: {use: cfg, scale: 3}}
  - {name: structure, until: 0.875, variant: high-q5ks, sampler: unipc, guidance: none}
  - {name: polish, variant: low, sampler: dpmpp_2m, guidance: {use: cfg, scale: 3}}
"""


@pytest.fixture
def planned(weights, tmp_path):
    folder, _ = weights
    (tmp_path / "tiny.yaml").write_text(SCHEDULE)

    def make(*overrides):
        schedule = gatekit.load_schedule(tmp_path / "tiny.yaml", overrides)
        return gatekit.resolve(schedule, models_dir=folder)

    return make


@pytest.fixture
def plan(planned):
    return planned()


def test_shipped_files_come_back_as_the_modules_to_train_on(weights):
    from gatekit_tinywan.train import shipped
    from gatekit_wan22.whole_clip import encode_clip

    folder, trained = weights
    found = shipped.load_expert(folder, "high")
    for (name, wanted), (other, value) in zip(
        trained.named_parameters(), found.named_parameters(), strict=True
    ):
        assert name == other and value.dtype == torch.float32
        assert torch.equal(value, wanted.half().float())
    vae, (mean, std) = shipped.load_vae(folder)
    assert mean.tolist() == [0.0] * 16 and std.tolist() == [1.0] * 16
    encoded = encode_clip(vae, torch.rand(1, 3, 5, 32, 32))[0]
    assert encoded.shape == (1, 16, 2, 4, 4) and encoded.isfinite().all()


def test_one_run_is_one_video_and_the_same_bits_again(plan):
    inputs = gatekit.Inputs(prompt="a small red circle moves left slowly", seed=3)
    first, again = gatekit.run(plan, inputs), gatekit.run(plan, inputs)
    assert first.video.shape == (5, 32, 32, 3) and first.latent.shape == (16, 2, 4, 4)
    assert first.video.min() >= 0 and first.video.max() <= 1
    assert torch.equal(first.video, again.video)
    other = gatekit.run(plan, gatekit.Inputs(prompt="a large blue cross moves up", seed=3))
    assert not torch.equal(first.latent, other.latent)


def test_an_image_changes_the_video(plan):
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    without = gatekit.run(plan, gatekit.Inputs(prompt="a red circle", seed=1))
    with_image = gatekit.run(plan, gatekit.Inputs(prompt="a red circle", seed=1, image=image))
    assert not torch.equal(without.latent, with_image.latent)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param((), id="as it is"),
        pytest.param(
            (
                "sigmas.steps=5",
                "phases.structure.guidance={use: apg, scale: 3, momentum: -0.5}",
                "phases.polish.guidance={use: apg, scale: 3, momentum: -0.7}",
                "phases.polish.strategy=restart",
                "phases.polish.variant=high-q5ks",
                "phases.polish.compute=bf16",
            ),
            id="memory, strategy, two precisions of one model",
        ),
    ],
)
def test_a_batch_gives_each_caption_the_video_of_a_run_alone(planned, changes):
    from gatekit_tinywan.evaluate import generate

    plan, exact = planned(*changes), not changes
    prompts = ["a small red circle moves left slowly", "a large blue cross moves up quickly"]
    latents = generate(plan, prompts, [5, 6], "cpu")
    for i, (prompt, seed) in enumerate(zip(prompts, (5, 6), strict=True)):
        alone = gatekit.run(plan, gatekit.Inputs(prompt=prompt, seed=seed)).latent
        error = (latents[i] - alone).norm() / alone.norm()
        assert error < (2e-4 if exact else 0.03)  # bf16 rounds a batch otherwise than one


def test_exported_fp16_predicts_as_the_trained_module(weights):
    folder, model = weights
    variant = gatekit.open_variant(
        {"use": "safetensors", "file": str(folder / "tinywan_low_fp16.safetensors")},
        family="tinywan",
        device="cpu",
        compute="fp32",
    )
    from gatekit_wan22 import WanConditioning

    x, image = torch.randn(1, 16, 2, 4, 4), torch.randn(1, 20, 2, 4, 4)
    ids, lengths = encode_ids(["a red circle moves left"])
    mask = (torch.arange(TEXT_LENGTH) < torch.tensor(lengths)[:, None]).long()
    with torch.no_grad():
        text = model.embed(torch.tensor(ids), mask)
        expected = model(torch.cat([x, image], 1), torch.tensor([0.6]), text)
    found = variant.velocity(x, 0.6, WanConditioning(text=text, image=image))
    assert (found - expected).norm() < 2e-3 * expected.norm()  # fp16 rounding of the weights


def test_gguf_mixes_are_those_of_public_files(weights):
    folder, _ = weights
    from gguf import GGUFReader

    reader = GGUFReader(folder / "tinywan_high_Q2_K.gguf")
    kinds = {t.name: t.tensor_type.name for t in reader.tensors}
    assert kinds["blocks.0.self_attn.v.weight"] == "Q3_K"
    assert kinds["blocks.0.self_attn.q.weight"] == kinds["blocks.4.ffn.2.weight"] == "Q2_K"
    assert kinds["patch_embedding.weight"] == "F32"
    assert sum(k in ("Q2_K", "Q3_K") for k in kinds.values()) == 10 * 5
    five = {t.tensor_type.name for t in GGUFReader(folder / "tinywan_low_Q5_K_S.gguf").tensors}
    assert five == {"Q5_K", "F16", "F32"}


def test_all_shipped_files_fit_in_forty_mib(weights):
    folder, _ = weights
    left_out = "tinywan_low_Q5_K_S.gguf"  # not shipped: no schedule needs it
    sizes = [f.stat().st_size for f in folder.iterdir() if f.name != left_out]
    assert len(sizes) == 7 and sum(sizes) <= 40 * 2**20


def test_the_quantiser_keeps_what_its_bits_can():
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    from gatekit_tinywan.train.quantise import quantise

    weight = np.random.default_rng(0).standard_normal((64, 512)).astype(np.float32)
    for kind, least, most in (("Q2_K", 0.2, 0.35), ("Q3_K", 0.1, 0.2), ("Q5_K", 0.02, 0.05)):
        back = dequantize(quantise(weight, kind), GGMLQuantizationType[kind])
        assert least < np.linalg.norm(back - weight) / np.linalg.norm(weight) < most
    with pytest.raises(ValueError, match="multiple of 256"):
        quantise(weight[:, :100], "Q2_K")


def test_every_word_has_a_token_and_others_none():
    tokenizer = build_tokenizer()
    unknown = tokenizer.token_to_id("<unk>")
    ids, lengths = encode_ids([" ".join(VOCABULARY[:40]), "A Red, CIRCLE.", "zebra", ""])
    assert unknown not in ids[0] and unknown not in ids[1]
    assert ids[2][0] == unknown and lengths == [41, 4, 2, 1]
    assert ids[3] == [tokenizer.token_to_id("</s>")] + [0] * (TEXT_LENGTH - 1)


def test_muon_steps_along_a_semi_orthogonal_matrix():
    from gatekit_tinywan.train.muon import Muon

    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.zeros(32, 64))
    parameter.grad = torch.randn(32, 64)
    optimizer = Muon([parameter], lr=0.1, decay=0.0)
    optimizer.step()
    singular = torch.linalg.svdvals(parameter.detach()) / (0.2 * 64**0.5 * 0.1)
    assert singular.min() > 0.5 and singular.max() < 1.3
    assert (parameter.detach() * parameter.grad).sum() < 0  # downhill


def test_comparison_of_a_schedule_with_itself():
    from gatekit_tinywan.evaluate import compare
    from gatekit_tinywan.world import HELD_OUT_SEED, judge, render, sample_scenes

    scenes = sample_scenes(HELD_OUT_SEED, range(4), split="held_out")
    video = render(scenes)
    videos = (video * 255).round().byte()
    verdict = judge(video, scenes)
    figures = compare(verdict, videos, verdict, videos)
    assert figures["all_right"] == 1.0 and figures["difference"] == 0.0
    assert figures["psnr_median"] is None
    darker = compare(verdict, videos // 2, verdict, videos)
    assert 5 < darker["psnr_median"] < 25
    one = judge(video[:1], scenes[:1])
    assert compare(one, videos[:1], one, videos[:1])["difference_standard_error"] is None


def test_two_processes_do_the_work_of_one_in_half_of_the_time():
    from gatekit_tinywan.train.config import Config

    whole = Config()
    half = whole.share(2)
    assert whole.share(1) == whole
    for name in ("vae_seconds", "base_seconds", "clips", "batch"):
        assert 2 * getattr(half, name) == getattr(whole, name)
    for part, stage in zip(half.vae_stages, whole.vae_stages, strict=True):
        assert (*part[:3], 2 * part[3]) == stage
    assert half.expert_seconds == whole.expert_seconds  # each process trains one expert


def test_the_low_expert_may_have_more_time():
    from gatekit_tinywan.train.config import Config

    assert [Config().seconds_of(e) for e in ("high", "low")] == [Config().expert_seconds] * 2
    given = Config(expert_seconds=500, low_seconds=850)
    assert [given.seconds_of(e) for e in ("high", "low")] == [500, 850]


@pytest.mark.parametrize(
    ("file", "section", "model"),
    [
        ("tinywan_vae_fp16.safetensors", "vae", "Wan VAE (2.1), z 16, stride 4x8x8, base 32"),
        ("tinywan_umt5_fp16.safetensors", "text_encoder", "UMT5 encoder, 2 layers x 128"),
    ],
)
def test_inspect_knows_a_text_encoder_and_a_vae(weights, file, section, model, capsys):
    from gatekit.cli import call

    assert call(["inspect", str(weights[0] / file)]) == 0
    shown = capsys.readouterr().out
    assert model in shown and f"  {section}: {{file: {file}}}" in shown
    assert "storage: F16, 16.0" in shown
