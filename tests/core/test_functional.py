import pytest
import torch

import gatekit
from gatekit import FunctionPhase, InputError, PluginError, sample, sample_phases
from gatekit.testing import Gaussian, Mixture

S = [5 * u / (1 + 4 * u) for u in (1 - i / 20 for i in range(21))]
X = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m", "unipc"])
@pytest.mark.parametrize("path", ["flow", "ve"])
def test_reaches_the_target_along_the_closed_form_flow(sampler, path):
    top = 1.0 if path == "flow" else 20.0
    field = Gaussian(
        path=gatekit.RectifiedFlow() if path == "flow" else gatekit.VarianceExploding()
    )
    grid = [top * (1 - i / 400) ** 3 for i in range(401)]
    x = X * top
    end = sample(field, x, grid, sampler=sampler, path=path)
    assert (end - field.flow(x, top, 0.0)).abs().max() < 0.02


def test_the_contracts_own_example():
    phases = [
        FunctionPhase(Mixture(), sampler="unipc", sigmas=S[:9], field="high"),
        FunctionPhase(Gaussian(), sampler="unipc", sigmas=S[8:], field="low", history="carry"),
    ]
    assert sample_phases(phases, X, seed=0, path="flow").shape == X.shape


def test_sampler_by_name_or_object_and_parameters():
    named = sample(Mixture(), X, S, sampler="dpmpp_2m", coordinate="u")
    cls = gatekit.list_samplers()["dpmpp_2m"]
    assert named.equal(sample(Mixture(), X, S, sampler=cls(cls.Params(coordinate="u"))))
    assert not named.equal(sample(Mixture(), X, S, sampler="dpmpp_2m"))


def test_tensor_sigmas_and_dtypes():
    assert sample(Mixture(), X.half(), torch.tensor(S, dtype=torch.float64)).dtype == torch.float32
    assert sample(Mixture(), X, S).dtype == torch.float64


def test_mistakes_are_named():
    with pytest.raises(PluginError, match="did you mean 'dpmpp_2m'"):
        sample(Mixture(), X, S, sampler="dpmpp_2n")
    with pytest.raises(InputError, match=r"sample.sampler.coordinate.*takes: coordinate"):
        sample(Mixture(), X, S, sampler="dpmpp_2m", coordinate="logsnr")
    with pytest.raises(InputError, match="takes: no parameters"):
        sample(Mixture(), X, S, sampler="euler", eta=0.5)
    with pytest.raises(InputError, match=r"top.strategy.k: .*'grid' takes: no parameters"):
        phase = FunctionPhase(Mixture(), "euler", S, strategy_params={"k": 1}, name="top")
        sample_phases([phase], X)
    with pytest.raises(InputError, match="ready object"):
        sample(Mixture(), X, S, sampler=gatekit.list_samplers()["euler"](), eta=0.5)
    with pytest.raises(InputError, match=r"sample.sampler.ordr: unknown parameter \(got 3\)"):
        sample(Mixture(), X, S, sampler="unipc", ordr=3)
    with pytest.raises(InputError, match=r"sample.sampler.order: must be a whole number"):
        sample(Mixture(), X, S, sampler="unipc", order="x")
    with pytest.raises(InputError, match=r"a sampler is a name, .*call the class: Euler\(\)"):
        sample(Mixture(), X, S, sampler=gatekit.list_samplers()["euler"])
    with pytest.raises(InputError, match="a sampler is a name"):
        sample(Mixture(), X, S, sampler=None)
    with pytest.raises(InputError, match=r"shape it is given .got 'NoneType'"):
        sample(lambda x, sigma: None, X, S)
    with pytest.raises(InputError, match="at most 1"):
        sample(Mixture(), X, [2.0, 0.0])
    with pytest.raises(PluginError, match="carri"):
        sample_phases([FunctionPhase(Mixture(), "euler", S, history="carri")], X)
    with pytest.raises(InputError, match="starts at another sigma"):
        sample_phases(
            [FunctionPhase(Mixture(), "euler", S[:5]), FunctionPhase(Mixture(), "euler", S[5:])], X
        )


def test_observers_see_every_interval():
    seen = []
    sample(Mixture(), X, S, observers=[lambda state, record, denoised: seen.append(record.sigma)])
    assert seen == S[:-1]


def test_phases_of_one_callable_share_their_history_by_default():
    field = Mixture()
    cut = sample_phases(
        [
            FunctionPhase(field, "unipc", S[:8]),
            FunctionPhase(field, "unipc", S[7:], history="close"),
        ],
        X,
    )
    assert cut.equal(sample(field, X, S, sampler="unipc"))
