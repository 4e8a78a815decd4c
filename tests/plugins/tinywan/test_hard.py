"""Clips with a small cross are found, and drawn as often as is asked for."""

from dataclasses import replace

import pytest
import torch

pytest.importorskip("diffusers")

from gatekit_tinywan.train.config import Config
from gatekit_tinywan.train.dataset import Dataset, code_columns, hard_rows
from gatekit_tinywan.train.denoiser import _batch, _empty
from gatekit_tinywan.world import TRAIN_SEED, sample_scenes


def test_hard_rows_are_those_whose_caption_says_so():
    scenes = sample_scenes(TRAIN_SEED, range(60))
    said = []
    for i in range(60):
        scene = scenes.attributes(i)
        if any(t.shape == "cross" and t.size == "small" for t in (scene.first, scene.second)):
            said.append(i)
    assert 0 < len(said) < 30
    assert hard_rows(code_columns(scenes.codes)).tolist() == said


@pytest.mark.parametrize(("share", "wanted"), [(0.0, 0), (0.5, 30)])
def test_share_of_hard_rows_of_those_without_an_image(share, wanted):
    clips, unit = torch.zeros(1000, 16, 1, 1, 1), torch.ones(16)
    ids = torch.ones(1000, 4, dtype=torch.long)
    data = Dataset(
        clips, clips[:10], ids, ids[:, 0], ids[:, :0], unit, unit, hard=torch.tensor([999])
    )
    torch.manual_seed(0)
    config = replace(Config(), batch=80, image_share=0.25, hard_share=share)
    rows = _batch(data, config, _empty(data))[0]
    assert (rows[:20] < 10).all()
    assert wanted <= int((rows == 999).sum()) <= wanted + 2
