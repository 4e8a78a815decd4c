"""The half of ``beside_skrample.py`` that runs in skrample's own environment, Python 3.12."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from skrample import scheduling
from skrample.sampling import functional, interface, models, structured

DATA = models.DataModel()


def samplers() -> dict[str, Any]:
    """Name -> a sampler of skrample."""
    held = interface.StructuredFunctionalAdapter
    found: dict[str, Any] = {"Euler": held(structured.Euler())}
    for order in (2, 3):
        found[f"DPM {order}"] = held(structured.DPM(order=order))
    for order in (2, 3, 4):
        found[f"Adams {order}"] = held(structured.Adams(order=order))
        found[f"Adams {order} on velocity"] = held(
            structured.Adams(order=order, derivative_transform=models.FlowModel())
        )
        found[f"UniPC {order}"] = held(structured.UniPC(order=order))
    for order in (2, 3, 4):
        found[f"RK {order}"] = functional.RKUltra(order=order)
    return found


def main() -> None:
    """Read the problem, run every sampler at every number of evaluations, write the ends."""
    with np.load(sys.argv[1]) as given:
        problem = {name: given[name] for name in given.files}
    schedule = scheduling.FlowShift(scheduling.Linear(), shift=float(problem["shift"]))
    ends: dict[str, Any] = {}
    for name, sampler in samplers().items():
        for budget in problem["budgets"].tolist():
            model = Mixture(problem)
            steps = budget
            if isinstance(sampler, functional.FunctionalHigher):
                steps = max(1, sampler.adjust_steps(budget))
            end = sampler.sample_model(problem["noise"], model, DATA, schedule, steps)
            ends[json.dumps([name, budget, model.calls])] = end
    np.savez(sys.argv[2], **ends)


class Mixture:
    """E[x0 | x] of a mixture of Gaussians in every element, and how often it was asked."""

    def __init__(self, problem: dict[str, Any]) -> None:
        self.weights, self.means, self.stds = (problem[k] for k in ("weights", "means", "stds"))
        self.calls = 0

    def __call__(self, x: Any, timestep: float, sigma: float, alpha: float) -> Any:
        self.calls += 1
        variance = (alpha * self.stds) ** 2 + sigma**2
        z = x[..., None] - alpha * self.means
        logs = np.log(self.weights) - np.log(variance) / 2 - z**2 / variance / 2
        share = np.exp(logs - logs.max(-1, keepdims=True))
        share /= share.sum(-1, keepdims=True)
        return (share * (self.means + alpha * self.stds**2 * z / variance)).sum(-1)


if __name__ == "__main__":
    main()
