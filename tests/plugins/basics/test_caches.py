"""Step caches by what they skip and what they put in its place, on a chain of known blocks."""

import pytest
import torch

from gatekit import InputError, ScheduleError
from gatekit.functional import make_params
from gatekit.registry import registry

GENERATOR = torch.Generator().manual_seed(0)
HIDDEN = torch.randn(1, 6, 8, generator=GENERATOR)
PROFILE = [[1.0, 1.0], [0.5, 0.9], [0.1, 0.45]]


def cache(name, **params):
    cls = registry().get("cache", name)
    return cls(make_params(cls, params, name))


class Chain:
    """Three blocks, h + scale tanh h; counts how often each ran."""

    def __init__(self):
        self.ran = [0, 0, 0]

    def __iter__(self):
        return iter([self.block(i) for i in range(3)])

    def block(self, i):
        def run(hidden):
            self.ran[i] += 1
            return hidden + (i + 1) * 0.1 * hidden.tanh()

        return run

    def all(self, hidden):
        for block in self:
            hidden = block(hidden)
        return hidden


def passes(method, given, chain=None):
    """What a cache makes of (hidden, sigma) in order."""
    chain, memory, found = chain or Chain(), {}, []
    for hidden, sigma in given:
        made = method.through(list(chain), hidden, sigma, memory)
        memory = made.memory
        found.append(made)
    return found


NAMES = [
    pytest.param("first_block", {}, id="first_block"),
    pytest.param("mag", {"profile": PROFILE}, id="mag"),
    pytest.param("none", {}, id="none"),
]


@pytest.mark.parametrize(("name", "params"), NAMES)
def test_the_first_pass_is_exact(name, params):
    (made,) = passes(cache(name, **params), [(HIDDEN, 0.9)])
    assert torch.equal(made.hidden, Chain().all(HIDDEN))
    assert not made.skipped


@pytest.mark.parametrize(("name", "params"), NAMES[:2])
def test_a_threshold_of_zero_skips_nothing_that_changed(name, params):
    method = cache(name, threshold=0.0, **params)
    changed = HIDDEN + 0.1 * torch.randn(HIDDEN.shape, generator=GENERATOR)
    first, second = passes(method, [(HIDDEN, 0.9), (changed, 0.8)])
    assert (first.skipped, second.skipped) == (False, False)
    assert torch.equal(second.hidden, Chain().all(changed))


def test_first_block_reuses_what_the_others_added():
    near = HIDDEN * 1.01
    chain = Chain()
    _, second = passes(cache("first_block", threshold=0.05), [(HIDDEN, 0.9), (near, 0.8)], chain)
    first = Chain().block(0)
    expected = first(near) + (Chain().all(HIDDEN) - first(HIDDEN))
    assert second.skipped
    assert chain.ran == [2, 1, 1]
    assert torch.allclose(second.hidden, expected, atol=1e-6)


def test_first_block_measures_the_relative_change_of_the_first_block():
    first = Chain().block(0)
    near = HIDDEN * 1.1
    added, before = first(near) - near, first(HIDDEN) - HIDDEN
    change = float((added - before).abs().mean() / before.abs().mean())
    for threshold, skipped in ((change * 1.001, True), (change * 0.999, False)):
        method = cache("first_block", threshold=threshold)
        assert passes(method, [(HIDDEN, 0.9), (near, 0.8)])[1].skipped is skipped


def test_first_block_compares_with_the_last_whole_pass_so_that_drift_is_bounded():
    given = [(HIDDEN * (1 + 0.02 * i), 0.9 - 0.05 * i) for i in range(8)]
    found = [made.skipped for made in passes(cache("first_block", threshold=0.05), given)]
    assert found[0] is False
    assert 0 < sum(found) < 7
    assert False in found[1:]


def test_first_block_asks_every_sample():
    pair = torch.cat([HIDDEN, HIDDEN])
    one_moves = torch.cat([HIDDEN * 1.001, -HIDDEN])
    method = cache("first_block", threshold=0.1)
    assert not passes(method, [(pair, 0.9), (one_moves, 0.8)])[1].skipped
    assert passes(method, [(HIDDEN, 0.9), (HIDDEN * 1.001, 0.8)])[1].skipped


def test_mag_adds_expected_errors_up():
    # |1 - m/m'| from 1.0: 0.02, 0.04, ... at 0.9, 0.8, ... (nearly: the logarithm is linear)
    method = cache("mag", threshold=0.07, max_skips=None, profile=PROFILE)
    given = [(HIDDEN, s) for s in (1.0, 0.9, 0.8, 0.7)]
    found = passes(method, given)
    errors = [abs(1 - method.magnitude(s)) for s in (0.9, 0.8, 0.7)]
    assert errors[0] + errors[1] <= 0.07 < sum(errors)
    assert [made.skipped for made in found] == [False, True, True, False]
    assert found[2].memory["error"] == pytest.approx(errors[0] + errors[1])


def test_mag_reuses_what_all_blocks_added():
    other = torch.randn(HIDDEN.shape, generator=GENERATOR)
    chain = Chain()
    method = cache("mag", threshold=1.0, profile=PROFILE)
    _, second = passes(method, [(HIDDEN, 0.9), (other, 0.8)], chain)
    assert second.skipped
    assert chain.ran == [1, 1, 1]
    assert torch.allclose(second.hidden, other + Chain().all(HIDDEN) - HIDDEN, atol=1e-6)


def test_mag_interpolates_its_profile_in_the_logarithm():
    method = cache("mag", profile=PROFILE)
    for sigma, magnitude in PROFILE:
        assert method.magnitude(sigma) == pytest.approx(magnitude)
    assert method.magnitude(0.3) == pytest.approx((0.9 * 0.45) ** 0.5)
    assert method.magnitude(0.01) == 0.45


@pytest.mark.parametrize(
    ("params", "given", "skipped"),
    [
        pytest.param({"max_skips": 2}, (1.0, 0.9, 0.8, 0.7), [0, 1, 1, 0], id="max_skips"),
        pytest.param({"start": 0.85}, (1.0, 0.9, 0.8, 0.7), [0, 0, 1, 1], id="start"),
        pytest.param({"end": 0.75}, (1.0, 0.9, 0.8, 0.7), [0, 1, 1, 0], id="end"),
        pytest.param({}, (0.8, 0.7, 0.9, 0.8), [0, 1, 0, 1], id="sigma rises: other noise"),
    ],
)
@pytest.mark.parametrize("name", ["first_block", "mag"])
def test_where_a_pass_may_be_skipped(name, params, given, skipped):
    more = {"profile": PROFILE, "max_skips": None} if name == "mag" else {}
    method = cache(name, threshold=10.0, **(more | params))
    found = passes(method, [(HIDDEN, sigma) for sigma in given])
    assert [int(made.skipped) for made in found] == skipped


@pytest.mark.parametrize(
    ("name", "params"),
    [
        pytest.param("first_block", {"threshold": -0.1}, id="negative threshold"),
        pytest.param("first_block", {"start": 0.3, "end": 0.5}, id="start below end"),
        pytest.param("first_block", {"max_skips": 0}, id="no skips"),
        pytest.param("first_block", {"profile": PROFILE}, id="unknown key"),
        pytest.param("mag", {}, id="no profile"),
        pytest.param("mag", {"profile": [[0.5, 1.0], [0.9, 1.0]]}, id="ascending"),
        pytest.param("mag", {"profile": [[0.9, 1.0], [0.5, 0.0]]}, id="magnitude 0"),
        pytest.param("none", {"threshold": 0.1}, id="none takes nothing"),
    ],
)
def test_bad_parameters_are_refused(name, params):
    with pytest.raises(InputError):
        cache(name, **params)


@pytest.mark.parametrize(
    ("params", "most", "key", "said"),
    [
        pytest.param({"start": 5}, 1.0, "start", "above 1", id="a step, where a sigma is meant"),
        pytest.param({"start": 0.4}, 1.0, "start", "ends at sigma 0.5", id="below the phase"),
        pytest.param({"end": 0.95}, 1.0, "end", "begins at sigma 0.9", id="above the phase"),
    ],
)
@pytest.mark.parametrize("name", ["first_block", "mag"])
def test_what_can_never_skip_is_refused(name, params, most, key, said):
    method = cache(name, **params, **({"profile": PROFILE} if name == "mag" else {}))
    with pytest.raises(ScheduleError, match=said) as caught:
        method.check((0.9, 0.7, 0.5), most)
    assert caught.value.key == (key,) and caught.value.value == params[key]
    assert "this phase goes from 0.9 to 0.5" in str(caught.value)


@pytest.mark.parametrize(
    ("params", "most"),
    [({}, 1.0), ({"start": 1.0, "end": 0.9}, 1.0), ({"start": 0.5}, 1.0), ({"start": 5}, 80.0)],
)
def test_what_may_skip_at_one_sigma_is_not_refused(params, most):
    cache("first_block", **params).check((0.9, 0.7, 0.5), most)
