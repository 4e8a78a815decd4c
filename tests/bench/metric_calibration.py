"""What every metric says of drawn clips and of known corruptions of them: the table of metrics.md.

python tests/bench/metric_calibration.py [--clips 16]
"""

from __future__ import annotations

import argparse

from gatekit import Sample
from gatekit_research.corruptions import CORRUPTIONS
from gatekit_research.metrics import METRICS
from gatekit_tinywan.caption_metric import CaptionMatch
from gatekit_tinywan.world import HELD_OUT_SEED, render, sample_scenes

STRENGTHS = {
    "blur": (0.7, 2.0, 5.0),
    "noise": (0.01, 0.04, 0.12),
    "shuffle": (0.2, 0.45, 0.8),
    "drop": (0.1, 0.3, 0.8),
    "colour_shift": (0.1, 0.3, 0.6),
    "still": (0.5, 0.8, 1.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=16)
    clips = parser.parse_args().clips
    scenes = sample_scenes(HELD_OUT_SEED, range(clips), split="held_out")
    videos, captions = render(scenes).permute(0, 2, 3, 4, 1), scenes.captions()
    metrics = [m() for m in (*METRICS, CaptionMatch) if "video" in m.needs]
    print("| | strength | " + " | ".join(m.name for m in metrics) + " |")
    print("|---|---|" + "---|" * len(metrics))
    rows = [("truth", 0.0), *((k, s) for k, steps in STRENGTHS.items() for s in steps)]
    for name, strength in rows:
        sums = dict.fromkeys((m.name for m in metrics), 0.0)
        for video, caption in zip(videos, captions, strict=True):
            changed = CORRUPTIONS[name](video, strength) if name in CORRUPTIONS else video
            sample = Sample(video=changed, prompt=caption, reference=Sample(video=video))
            for metric in metrics:
                value = metric.measure(sample)
                sums[metric.name] += value if isinstance(value, float) else value["all_right"]
        values = (
            f"{sums[m.name] / clips:.3f}" + ("*" if name in m.detects else "") for m in metrics
        )
        print(f"| {name} | {strength:g} | " + " | ".join(values) + " |")


if __name__ == "__main__":
    main()
