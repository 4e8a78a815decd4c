"""Untrained files of the small model."""

import shutil

import pytest
import torch


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Files of both experts (the same weights), the VAE and the text encoder, from a seed."""
    from gatekit_tinywan.train import export
    from gatekit_tinywan.train.models import TextConditioned, build_vae

    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    model = TextConditioned()
    export.export_text_encoder(folder, model.text)
    export.export_vae(folder, build_vae(), torch.zeros(16), torch.ones(16))
    for file in export.export_expert(folder, "high", model.transformer):
        shutil.copy(file, folder / file.name.replace("high", "low"))
    return folder, model
