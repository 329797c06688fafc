"""The curves of a training run as a picture."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

_LOSS, _RATE, _QUALITIES = "#1f5fa8", "#7a7a7a", {"hit_1": "#c2571a", "recall_5": "#8a6fb0", "recall_10": "#2e7d4f"}


def draw_curves(metrics: pa.Table, path: Path) -> None:
    """Draws loss, learning rate and recall over the steps, one below the other."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    steps = metrics.column("step").to_numpy()
    figure, (loss, recall, rate) = pyplot.subplots(
        3, 1, figsize=(8, 8), sharex=True, height_ratios=(3, 3, 1), layout="constrained"
    )
    loss.plot(steps, metrics.column("label_loss").to_numpy(), color=_LOSS, linewidth=1.2, label="labels")
    if metrics.column("denoise_loss").null_count < metrics.num_rows:
        denoise = metrics.column("denoise_loss").to_numpy(zero_copy_only=False)
        loss.plot(steps, denoise, color=_RATE, linewidth=1.2, label="denoising")
        loss.legend(frameon=False)
    loss.set_ylabel("loss (nats a token)")
    for name, colour in _QUALITIES.items():
        measured = metrics.filter(metrics.column(name).is_valid())
        recall.plot(
            measured.column("step").to_numpy(),
            measured.column(name).to_numpy(),
            color=colour,
            marker=".",
            label=name.replace("_", "@"),
        )
    recall.set_ylabel("share, 0 to 1")
    recall.set_ylim(0, 1.15)
    recall.set_yticks([0, 0.25, 0.5, 0.75, 1])
    recall.legend(frameon=False, loc="upper left", ncols=len(_QUALITIES))
    rate.plot(steps, metrics.column("learning_rate").to_numpy(), color=_RATE, linewidth=1.2)
    rate.set_ylabel("learning rate")
    rate.set_xlabel("step")
    for axes in (loss, recall, rate):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.align_ylabels()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
