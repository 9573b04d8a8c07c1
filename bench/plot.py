"""The picture of a run."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

PEERS = ("bare Celery", "the bus")


def plot(report: dict[str, Any], path: Path) -> None:
    """Throughput, latency and CPU per message of both peers, side by side, as PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    def median(name: str, *keys: str) -> float:
        values = []
        for one in report["rounds"]:
            value = one[name]
            for key in keys:
                value = value[key]
            values.append(value)
        return statistics.median(values)

    panels = [
        ("end to end, messages/s", [median(p, "end_to_end_per_s") for p in PEERS]),
        (
            "p99 accept to arrival at half load, ms",
            [median(p, "latency_at_half_load", "accept_to_arrival_p99_ms") for p in PEERS],
        ),
        ("CPU per message, µs", [median(p, "cpu_us_per_message") for p in PEERS]),
    ]
    figure, axes = plt.subplots(1, len(panels), figsize=(12, 4))
    for axis, (title, values) in zip(axes, panels, strict=True):
        bars = axis.bar(PEERS, values, color=["#999999", "#2b6cb0"])
        axis.bar_label(bars, fmt="%.0f")
        axis.set_title(title)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"{report['messages']} single POSTs over {report['connections']} connections; end to end {report['ratio']}× bare Celery"
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)
