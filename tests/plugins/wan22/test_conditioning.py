"""Mask and condition of a first frame, and padding, against plain constructions."""

import pytest
import torch

from gatekit import InputError
from gatekit_wan22 import WanConditioning, frame_mask, image_condition, pad_text


@pytest.mark.parametrize("frames", [1, 5, 9, 81])
def test_mask_by_counting(frames):
    """Four values a latent frame, one for each video frame; frame 0 fills the first four."""
    mask = frame_mask(frames, 2, 3)
    latent_frames = (frames - 1) // 4 + 1
    assert mask.shape == (1, 4, latent_frames, 2, 3)
    for t in range(latent_frames):
        for k in range(4):
            given = 1.0 if t == 0 else 0.0
            assert (mask[0, k, t] == given).all()


@pytest.mark.parametrize("frames", [1, 5, 13])
def test_mask_as_the_facts_state_it(frames):
    """Ones on frame 0 repeated 4 times, zeros after, view(1, T, 4, h, w).transpose(1, 2)."""
    h, w, t = 4, 6, (frames - 1) // 4 + 1
    flat = torch.cat([torch.ones(4, h, w), torch.zeros(frames - 1, h, w)])
    assert torch.equal(frame_mask(frames, h, w), flat.view(1, t, 4, h, w).transpose(1, 2))


@pytest.mark.parametrize("known", [(0,), (-1,), (0, -1), (3,)])
def test_a_known_frame_marks_its_own_slot(known):
    """Frame 0 has four slots, every other frame one; in order of time, four a latent."""
    frames = 13
    slots = [0, 0, 0, *range(frames)]
    numbers = {n % frames for n in known}
    flat = torch.tensor([1.0 if number in numbers else 0.0 for number in slots])
    mask = frame_mask(frames, 1, 1, known=known)[0, :, :, 0, 0]
    assert torch.equal(mask, flat.view(4, 4).T)


def test_the_last_latent_frame_of_a_known_last_frame_is_0001():
    mask = frame_mask(81, 2, 3, known=(0, -1))[0, :, :, 1, 2]
    assert mask[:, 0].tolist() == [1, 1, 1, 1]
    assert mask[:, -1].tolist() == [0, 0, 0, 1]
    assert not mask[:, 1:-1].any()


def test_mask_comes_first():
    encoded = torch.randn(2, 16, 3, 4, 6)
    out = image_condition(encoded, 9)
    assert out.shape == (2, 20, 3, 4, 6)
    assert torch.equal(out[:, 4:], encoded)
    assert torch.equal(out[:1, :4], frame_mask(9, 4, 6))
    assert torch.equal(out[1, :4], out[0, :4])


def test_padding():
    text = torch.randn(2, 7, 5)
    out = pad_text(text, 12)
    assert out.shape == (2, 12, 5)
    assert torch.equal(out[:, :7], text) and (out[:, 7:] == 0).all()
    assert pad_text(text).shape == (2, 512, 5)
    with pytest.raises(InputError, match="at most 6"):
        pad_text(text, 6)


def test_conditioning_is_frozen():
    conditioning = WanConditioning(text=torch.zeros(1, 2, 3))
    assert conditioning.image is None
    with pytest.raises(AttributeError):
        conditioning.image = torch.zeros(1)  # type: ignore[misc]
