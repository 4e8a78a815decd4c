"""Explicit Runge-Kutta methods: tableaux, and the one step that reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gatekit import Linear, Sampler, StepContext, StepResult, lazy

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Tableau:
    """Butcher's tableau of an explicit method on dx/dsigma = v = (x - D)/sigma.

    Attributes:
        name: Of the sampler.
        order: Of the method.
        nodes: c_i, from 0 to 1.
        rows: a_ij, row i for stage i + 1.
        weights: b_i.
        about: One line for its docstring.
        source: Where it stands.
        error: b_i - b*_i of an embedded method, the last one for the evaluation at the step's end.
    """

    name: str
    order: int
    nodes: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]
    about: str
    source: str
    error: tuple[float, ...] = ()

    def slopes(
        self, c: StepContext, x: Tensor, denoised: Tensor, sigma: float, to: float
    ) -> list[Linear]:
        """The velocities k_i of a step from (x, sigma) to ``to``, in terms of x and the D_i."""
        slopes = [c.velocity(lazy(x), denoised, sigma)]
        for node, row in zip(self.nodes[1:], self.rows, strict=True):
            at = to if node == 1.0 else sigma + node * (to - sigma)
            inner = x + (to - sigma) * combine(row, slopes)
            slopes.append(c.velocity(inner, c.denoise(inner.tensor(), at), at))
        return slopes


def combine(factors: tuple[float, ...], slopes: list[Linear]) -> Linear:
    """sum_i f_i k_i."""
    pairs = zip(factors, slopes, strict=True)
    return Linear((f * c, tensor) for f, slope in pairs if f != 0.0 for c, tensor in slope.terms)


class RungeKutta(Sampler):
    """x' = x + (s' - s) sum_i b_i k_i, k_i = v(x + (s' - s) sum_j a_ij k_j, s + c_i (s' - s))."""

    tableau: Tableau

    def step(self, c: StepContext) -> StepResult:
        """One step of the tableau."""
        denoised, t = c.denoise(c.x, c.sigma), self.tableau
        slopes = t.slopes(c, c.x, denoised, c.sigma, c.sigma_next)
        x = c.x + (c.sigma_next - c.sigma) * combine(t.weights, slopes)
        return StepResult(x.tensor(), denoised)


HAIRER = 'Hairer, Norsett, Wanner, "Solving Ordinary Differential Equations I", 2nd edition'

MIDPOINT = Tableau(
    "midpoint",
    2,
    (0, 1 / 2),
    ((1 / 2,),),
    (0, 1),
    "Midpoint rule",
    f"Runge 1895; {HAIRER}, section II.1",
)
RALSTON2 = Tableau(
    "ralston2",
    2,
    (0, 2 / 3),
    ((2 / 3,),),
    (1 / 4, 3 / 4),
    "Ralston's method of two stages, of least error bound",
    "Ralston, Math. Comp. 16 (1962) 431",
)
KUTTA3 = Tableau(
    "kutta3",
    3,
    (0, 1 / 2, 1),
    ((1 / 2,), (-1, 2)),
    (1 / 6, 2 / 3, 1 / 6),
    "Kutta's method of three stages",
    f"Kutta 1901; {HAIRER}, section II.1",
)
RALSTON3 = Tableau(
    "ralston3",
    3,
    (0, 1 / 2, 3 / 4),
    ((1 / 2,), (0, 3 / 4)),
    (2 / 9, 1 / 3, 4 / 9),
    "Ralston's method of three stages, of least error bound",
    "Ralston, Math. Comp. 16 (1962) 431; embedded: Bogacki and Shampine, Appl. Math. "
    "Lett. 2 (1989) 321",
    error=(2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8),
)
SSPRK3 = Tableau(
    "ssprk3",
    3,
    (0, 1, 1 / 2),
    ((1,), (1 / 4, 1 / 4)),
    (1 / 6, 1 / 6, 2 / 3),
    "Shu and Osher's strong-stability-preserving method",
    "Shu and Osher, J. Comput. Phys. 77 (1988) 439",
)
RK4 = Tableau(
    "rk4",
    4,
    (0, 1 / 2, 1 / 2, 1),
    ((1 / 2,), (0, 1 / 2), (0, 0, 1)),
    (1 / 6, 1 / 3, 1 / 3, 1 / 6),
    "The classical method",
    f"Kutta 1901; {HAIRER}, table II.1.2",
)
RK38 = Tableau(
    "rk38",
    4,
    (0, 1 / 3, 2 / 3, 1),
    ((1 / 3,), (-1 / 3, 1), (1, -1, 1)),
    (1 / 8, 3 / 8, 3 / 8, 1 / 8),
    "Kutta's 3/8 rule",
    f"Kutta 1901; {HAIRER}, table II.1.2",
)
BUTCHER5 = Tableau(
    "butcher5",
    5,
    (0, 1 / 4, 1 / 4, 1 / 2, 3 / 4, 1),
    (
        (1 / 4,),
        (1 / 8, 1 / 8),
        (0, -1 / 2, 1),
        (3 / 16, 0, 0, 9 / 16),
        (-3 / 7, 2 / 7, 12 / 7, -12 / 7, 8 / 7),
    ),
    (7 / 90, 0, 32 / 90, 12 / 90, 32 / 90, 7 / 90),
    "Butcher's method of six stages",
    "Butcher, J. Austral. Math. Soc. 4 (1964) 179",
)
DOPRI5 = Tableau(
    "dopri5",
    5,
    (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1),
    (
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    ),
    (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    "Dormand and Prince's method, with fixed steps (rk45 chooses its own)",
    f"Dormand and Prince, J. Comput. Appl. Math. 6 (1980) 19; {HAIRER}, table II.5.2",
    error=(
        71 / 57600,
        0,
        -71 / 16695,
        71 / 1920,
        -17253 / 339200,
        22 / 525,
        -1 / 40,
    ),
)


def _sampler(tableau: Tableau) -> type[Sampler]:
    stages = len(tableau.nodes)
    doc = f"{tableau.about}. Order {tableau.order}, {stages} evaluations a step."
    fields = {
        "__doc__": f"{doc}\n\n{RungeKutta.__doc__}\n\nSource: {tableau.source}.\n",
        "__module__": __name__,
        "name": tableau.name,
        "order": tableau.order,
        "nfe_per_step": stages,
        "tableau": tableau,
    }
    return type(f"RungeKutta_{tableau.name}", (RungeKutta,), fields)


TABLEAUX = (MIDPOINT, RALSTON2, KUTTA3, RALSTON3, SSPRK3, RK4, RK38, BUTCHER5, DOPRI5)
RUNGE_KUTTA = tuple(_sampler(tableau) for tableau in TABLEAUX)
