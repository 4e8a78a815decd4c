"""The built-in samplers, registered as any plugin's are."""

from __future__ import annotations

from gatekit import Sampler, hookimpl
from gatekit_samplers.adams import AB2, AB3
from gatekit_samplers.adaptive import RK23, RK45
from gatekit_samplers.commit import Commit
from gatekit_samplers.deis import DEIS
from gatekit_samplers.dpmpp_2m import DPMpp2M
from gatekit_samplers.dpmpp_2m_sde import DPMpp2MSDE
from gatekit_samplers.dpmpp_3m import DPMpp3M
from gatekit_samplers.dpmpp_3m_sde import DPMpp3MSDE
from gatekit_samplers.dpmpp_sde import DPMppSDE
from gatekit_samplers.er_sde import ERSDE
from gatekit_samplers.euler import Euler
from gatekit_samplers.euler_ancestral import EulerAncestral
from gatekit_samplers.heun import Heun
from gatekit_samplers.ipndm import IPNDM
from gatekit_samplers.lcm import LCM
from gatekit_samplers.lms import LMS
from gatekit_samplers.polish import Polish
from gatekit_samplers.res_2m import RES2M
from gatekit_samplers.res_2s import RES2S
from gatekit_samplers.res_3m import RES3M
from gatekit_samplers.res_3s import RES3S
from gatekit_samplers.runge_kutta import RUNGE_KUTTA
from gatekit_samplers.sa_solver import SASolver
from gatekit_samplers.seeds import SEEDS2, SEEDS3
from gatekit_samplers.structure import Structure
from gatekit_samplers.unipc import UniPC

SAMPLERS: tuple[type[Sampler], ...] = (
    Euler,
    Heun,
    *RUNGE_KUTTA,
    RK23,
    RK45,
    AB2,
    AB3,
    IPNDM,
    LMS,
    DEIS,
    DPMpp2M,
    DPMpp3M,
    RES2M,
    RES3M,
    RES2S,
    RES3S,
    UniPC,
    EulerAncestral,
    DPMpp2MSDE,
    DPMpp3MSDE,
    DPMppSDE,
    SASolver,
    ERSDE,
    SEEDS2,
    SEEDS3,
    LCM,
    Commit,
    Structure,
    Polish,
)


@hookimpl
def gatekit_register_samplers() -> list[type[Sampler]]:
    """Offer every sampler of this package."""
    return list(SAMPLERS)
