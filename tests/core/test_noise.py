import hashlib
import math

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekit import InputError, NoiseSource, deviates
from gatekit.brownian import DEPTH
from gatekit.deviates import BLOCK
from gatekit.noise import purpose_word


def test_deviates_are_fixed_for_ever():
    """A change here changes everybody's videos."""
    values = NoiseSource(42).normal((2, 3), step=1)
    digest = hashlib.sha256(values.numpy().tobytes()).hexdigest()[:16]
    assert (values.dtype, digest) == (torch.float32, "59f8dd0832fe306d")


def test_each_argument_changes_the_noise():
    base = {"step": 3, "purpose": "step", "visit": 0}
    first = NoiseSource(1).normal((1, 8), **base)
    assert first.equal(NoiseSource(1).normal((1, 8), **base))
    for change in ({"step": 4}, {"purpose": "init"}, {"visit": 1}):
        assert not first.equal(NoiseSource(1).normal((1, 8), **{**base, **change}))
    assert not first.equal(NoiseSource(2).normal((1, 8), **base))


def test_samples_of_a_batch():
    batch = NoiseSource(5).normal((3, 7), step=0)
    assert len({tuple(row.tolist()) for row in batch}) == 3
    assert batch[:2].equal(NoiseSource(5).normal((2, 7), step=0))
    listed = NoiseSource([5, 9]).normal((2, 7), step=0)
    for row, seed in zip(listed, (5, 9), strict=True):
        assert row.equal(NoiseSource(seed).normal((1, 7), step=0)[0])


def test_a_longer_tensor_begins_as_a_shorter_one_and_the_shape_only_folds():
    flat = NoiseSource(1).normal((1, 24), step=0)
    assert flat.reshape(1, 2, 3, 4).equal(NoiseSource(1).normal((1, 2, 3, 4), step=0))
    for size in (1, 7, 8, 23):
        assert flat[:, :size].equal(NoiseSource(1).normal((1, size), step=0))


@pytest.mark.parametrize("size", [(4, 6), (3, 5)])
def test_a_longer_video_begins_with_the_same_noise(size):
    """For every frame, sample and kind of draw; frames among themselves are independent."""
    channels, draws = 3, []
    for frames in (1, 2, 5):
        x = torch.zeros(2, channels, frames, *size)
        source = NoiseSource(9)
        drawn = [source.like(x, step=4), source.like(x, step=0, purpose="start")]
        draws.append(torch.stack([*drawn, source.brownian(x, 0.9, 0.3)]))
        assert draws[-1].is_contiguous()
    one, two, five = draws
    assert two.equal(five[:, :, :, :2])
    assert one.equal(five[:, :, :, :1])
    assert len({tuple(f.flatten().tolist()) for f in five[0, 0].unbind(1)}) == 5
    image = NoiseSource(9).like(torch.zeros(2, channels, *size), step=4)
    assert one[0, :, :, 0].equal(image)


def test_a_video_takes_the_sequence_frame_by_frame():
    """Frame after frame, in each the channels, takes the deviates in order."""
    flat = NoiseSource(2).normal((1, 3 * 2 * 4), step=1)[0]
    video = NoiseSource(2).normal((1, 2, 3, 1, 4), step=1)[0, :, :, 0]
    assert flat.reshape(3, 2, 4).equal(video.transpose(0, 1))


def test_moments():
    values = NoiseSource(0).normal((1, 200_001), step=0, dtype=torch.float64)
    assert values.isfinite().all()
    assert abs(float(values.mean())) < 0.01
    assert float(values.std()) == pytest.approx(1.0, abs=0.01)
    assert float((values**4).mean()) == pytest.approx(3.0, abs=0.1)
    a, b = values[0, :-1:2], values[0, 1::2]
    assert abs(float((a * b).mean())) < 0.02


def test_like_follows_dtype():
    x = torch.zeros(1, 5, dtype=torch.float64)
    noise = NoiseSource(0).like(x, step=0)
    assert noise.dtype == torch.float64
    assert noise.float().equal(NoiseSource(0).normal((1, 5), step=0))


def drawn():
    """Rows of more than two blocks, odd, of two samples: plain noise and a Brownian increment."""
    source = NoiseSource(9)
    x = torch.zeros(2, 4 * BLOCK + 4321, dtype=torch.float64)
    return source.like(x, step=2), source.brownian(x, 0.7, 0.4), source.brownian(x, 0.4, 0.15)


def test_threads_change_no_bit():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = drawn()
        torch.set_num_threads(3)
        together = drawn()
    finally:
        torch.set_num_threads(before)
    assert all(a.equal(b) for a, b in zip(alone, together, strict=True))


def test_the_callers_modes_change_no_bit():
    """Inference mode, which is a thread's own, and a default device that is not the CPU."""
    before = drawn()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with torch.inference_mode():
            inferred = drawn()
    finally:
        torch.set_num_threads(threads)
    assert all(a.equal(b) for a, b in zip(before, inferred, strict=True))
    source, x = NoiseSource(9), torch.zeros(1, 7)
    noise, path = source.like(x, step=2), source.brownian(x, 0.7, 0.4)
    source = NoiseSource(9)
    with torch.device("meta"):
        assert source.like(x, step=2).equal(noise)
        assert source.brownian(x, 0.7, 0.4).equal(path)


@pytest.mark.parametrize("block", [BLOCK // 4, 4 * BLOCK])
def test_blocks_change_no_bit(monkeypatch, block):
    before = drawn()
    monkeypatch.setattr(deviates, "BLOCK", block)
    assert all(a.equal(b) for a, b in zip(before, drawn(), strict=True))


def test_deviates_are_box_muller_of_philox_words():
    """The definition, written out: other code can make the same noise from it."""
    size = 2 * BLOCK + 7
    pairs = (size + 1) // 2
    counter = [0, 3, purpose_word("step"), 0]
    words = numpy.random.Philox(
        key=numpy.array([11, 0], dtype=numpy.uint64),
        counter=numpy.array(counter, dtype=numpy.uint64),
    ).random_raw(2 * pairs)
    uniform = (words >> numpy.uint64(11)) * 2.0**-53
    radius = numpy.sqrt(-2.0 * numpy.log(uniform[0::2] + 2.0**-53))
    angle = 2.0 * math.pi * uniform[1::2]
    pair = numpy.stack([radius * numpy.cos(angle), radius * numpy.sin(angle)], 1)
    wanted = pair.reshape(-1)[:size]
    made = NoiseSource(11).normal((1, size), step=3, dtype=torch.float64)[0].numpy()
    assert abs(made - wanted).max() < 4e-15


def test_a_brownian_path_is_its_bisection():
    """Levy's construction, written out at a place of four binary digits."""
    x = torch.zeros(1, 9, dtype=torch.float64)
    source = NoiseSource(4)

    def n(place):
        return source.normal((1, 9), step=place, purpose="brownian", dtype=torch.float64)

    one = 1 << DEPTH
    w1 = n(one)
    half = w1 / 2 + n(one // 2) / 2
    quarter = half / 2 + n(one // 4) * 0.125**0.5
    three = (quarter + half) / 2 + n(3 * one // 8) * 0.0625**0.5
    assert torch.allclose(source.brownian(x, 0.375, 0.0) * 0.375**0.5, three, atol=1e-14)
    assert torch.allclose(source.brownian(x, 1.0, 0.375) * 0.625**0.5, w1 - three, atol=1e-14)


@pytest.mark.parametrize("seed", [1.5, "7", [], [1, "2"], True, 1 << 64, None])
def test_bad_seeds(seed):
    with pytest.raises(InputError, match="64 bits"):
        NoiseSource(seed)


def test_seeds_must_fit_the_batch():
    with pytest.raises(InputError, match="2 seeds for a batch of 3"):
        NoiseSource([1, 2]).normal((3, 4), step=0)


def test_negative_and_large_seeds():
    a, b = (NoiseSource(s).normal((1, 4), step=0) for s in (-1, (1 << 64) - 2))
    assert not a.equal(b)


@settings(max_examples=20, deadline=None)
@given(
    cuts=st.lists(st.floats(0.001, 0.999), min_size=3, max_size=3, unique_by=lambda v: round(v, 3))
)
def test_brownian_increments_add_up(cuts):
    x = torch.zeros(2, 16, dtype=torch.float64)
    a, b, c = sorted(cuts, reverse=True)
    a, b, c = (round(v * 2**20) / 2**20 for v in (a, b, c))
    source = NoiseSource(3)
    whole = source.brownian(x, a, c) * math.sqrt(a - c)
    parts = source.brownian(x, a, b) * math.sqrt(a - b) + source.brownian(x, b, c) * math.sqrt(
        b - c
    )
    assert (whole - parts).abs().max() < 1e-9
    assert NoiseSource(3).brownian(x, a, b).equal(source.brownian(x, a, b))


def test_brownian_increments_are_standard_and_independent():
    x = torch.zeros(1, 20_000, dtype=torch.float64)
    source = NoiseSource(1)
    first, second = source.brownian(x, 0.9, 0.61), source.brownian(x, 0.61, 0.13)
    for increment in (first, second):
        assert float(increment.std()) == pytest.approx(1.0, abs=0.02)
    assert abs(float((first * second).mean())) < 0.03
    assert not source.brownian(x, 0.9, 0.61, visit=1).equal(first)
    assert float(source.brownian(x, 1.0, 0.0).std()) == pytest.approx(1.0, abs=0.02)


def test_brownian_places():
    x = torch.zeros(1, 2)
    with pytest.raises(InputError, match="lie in"):
        NoiseSource(0).brownian(x, 1.5, 0.5)
    with pytest.raises(InputError, match="no interval"):
        NoiseSource(0).brownian(x, 0.5, 0.5 + 1e-12)
