"""A profile on a terminal: a line a variant, and its errors at some sigmas."""

from __future__ import annotations

from gatekit_research.profile.document import RISK_FROM, Measured, Profile
from gatekit_research.tables import print_table

SHOWN = (0.97, 0.9, 0.8, 0.6, 0.4, 0.2)
HEADS = ("variant", "expert", "bits", "MiB", "s/eval", "E", "risk")


def show(profile: Profile) -> None:
    """Print it."""
    print(f"{profile.made.name}: {profile.runs} runs of {len(profile.steps)} steps on "
          f"{profile.made.device}; * is the reference")  # fmt: skip
    references = set(profile.reference.values())
    names = {key: f"{key} *" if key in references else key for key in profile.variants}
    rows = [[names[key], *cells(profile, v)] for key, v in profile.variants.items()]
    print_table(HEADS, rows)
    print(f"E: sum of |ds| rms(v_q - v) over its expert's steps; risk: from sigma {RISK_FROM} up\n")
    near = [nearest(profile, sigma) for sigma in SHOWN]
    shown = [step for i, step in enumerate(near) if step not in near[:i]]
    heads = ["||v_q - v||/||v|| at sigma", *(f"{profile.steps[i].sigma:.3f}" for i in shown), ""]
    rows = [
        [names[key], *at(v, shown), f"least cosine {min(row.cosine for row in v.rows):.4f}"]
        for key, v in profile.variants.items()
        if key not in references
    ]
    print_table(heads, rows)


def cells(profile: Profile, variant: Measured) -> list[str]:
    """What one line says of a variant besides its errors by sigma."""
    return [
        variant.expert or "-",
        f"{variant.bits:.2f}",
        f"{variant.file_bytes / 2**20:.1f}",
        f"{variant.seconds:.3g}",
        f"{variant.error(profile.steps):.4f}",
        f"{variant.error(profile.steps, RISK_FROM):.4f}",
    ]


def at(variant: Measured, steps: list[int]) -> list[str]:
    """Relative errors at some steps; empty where its expert does not serve."""
    rows = {row.step: row for row in variant.rows}
    return [f"{rows[step].relative:.4f}" if step in rows else "" for step in steps]


def nearest(profile: Profile, sigma: float) -> int:
    """The step that starts nearest to ``sigma``."""
    starts = [step.sigma for step in profile.steps]
    return min(range(len(starts)), key=lambda i: abs(starts[i] - sigma))
