import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekit import InputError, RectifiedFlow, VarianceExploding, multistep_weights
from gatekit.path import COORDINATES

FLOW = RectifiedFlow()


@given(
    st.sampled_from(COORDINATES),
    st.lists(st.floats(0.02, 0.98), min_size=4, max_size=4, unique_by=lambda v: round(v, 2)),
)
def test_weights_sum_to_one(coordinate, places):
    *nodes, sigma, sigma_next = sorted(places, reverse=True)
    weights = multistep_weights(FLOW, coordinate, sigma, sigma_next, [sigma, *nodes])
    assert math.fsum(weights) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("path", [FLOW, VarianceExploding()])
@pytest.mark.parametrize("coordinate", COORDINATES)
def test_exact_for_a_line_in_the_coordinate(path, coordinate):
    """D = c(s): dz/dy = D is integrated by the trapezoidal rule of very many points."""
    sigma, sigma_next = 0.7, 0.4
    nodes = [0.7, 0.9]
    a = multistep_weights(path, coordinate, sigma, sigma_next, nodes)
    values = [path.coordinate(coordinate, s) for s in nodes]
    mean = sum(w * v for w, v in zip(a, values, strict=True))
    points = 20_000
    total = norm = 0.0
    for i in range(points):
        y = 1 / sigma + (1 / sigma_next - 1 / sigma) * (i + 0.5) / points  # dy of alpha/s
        total += path.coordinate(coordinate, 1 / y)
        norm += 1.0
    assert mean == pytest.approx(total / norm, rel=1e-7, abs=1e-8)


def test_closed_form_in_u():
    """Integral of e^u (u - u0) over [u0, u0 + h], in closed form."""
    sigma, sigma_next, before = 0.6, 0.3, 0.8
    h, h_last = math.log(sigma / sigma_next), math.log(before / sigma)
    mean = (math.exp(h) * (h - 1) + 1) / math.expm1(h)
    _, past = multistep_weights(FLOW, "u", sigma, sigma_next, [sigma, before])
    assert past == pytest.approx(-mean / h_last, rel=1e-12)


def test_nodes_at_infinity_weigh_nothing():
    assert multistep_weights(FLOW, "lam", 0.9, 0.5, [0.9, 1.0]) == (1.0, 0.0)
    assert multistep_weights(FLOW, "lam", 1.0, 0.5, [0.5, 1.0]) == (1.0, 0.0)
    assert multistep_weights(FLOW, "lam", 1.0, 0.5, [1.0]) == (1.0,)
    assert multistep_weights(FLOW, "theta", 1.0, 0.5, [1.0]) == (1.0,)
    three = multistep_weights(FLOW, "ve", 0.8, 0.5, [0.8, 0.9, 1.0])
    assert three[2] == 0.0 and sum(three) == pytest.approx(1.0)


def test_coinciding_nodes_are_refused():
    with pytest.raises(InputError, match="coincide"):
        multistep_weights(FLOW, "u", 0.5, 0.4, [0.5, 0.5])
