from gatekit.testing import parametrize_with_checks
from gatekit_samplers.coordinate import MultistepParams
from gatekit_samplers.dpmpp_2m import DPMpp2M
from gatekit_samplers.euler import Euler
from gatekit_samplers.heun import Heun
from gatekit_samplers.unipc import UniPC, UniPCParams


@parametrize_with_checks(
    Euler,
    Heun,
    DPMpp2M,
    DPMpp2M(MultistepParams(coordinate="u")),
    DPMpp2M(MultistepParams(coordinate="theta")),
    UniPC,
    UniPC(UniPCParams(coordinate="s")),
    UniPC(UniPCParams(coordinate="theta")),
    UniPC(UniPCParams(coordinate="ve")),
    UniPC(UniPCParams(coordinate="u", weights="bh2")),
    UniPC(UniPCParams(order=3)),
    UniPC(UniPCParams(order=1)),
    UniPC(UniPCParams(corrector=False)),
)
def test_contract(sampler, check):
    check(sampler)
