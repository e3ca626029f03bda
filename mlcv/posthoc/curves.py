"""ROC and precision-recall curves as pictures, with the operating points of readers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sklearn.metrics import precision_recall_curve, roc_curve

from mlcv.files import whole_file
from mlcv.labels.states import known
from mlcv.posthoc.judge import Judged


def draw_curves(
    path: Path, kind: str, models: Sequence[Judged], class_names: Sequence[str], readers: dict[str, dict[str, Any]]
) -> None:
    """One panel a class.

    Args:
        path: of the PNG.
        kind: `roc` or `pr`.
        models: whose curves are drawn; the last one stands out.
        class_names: C names.
        readers: operating points by name, see `mlcv.posthoc.judge.operating_points`.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415  # an extra that only pictures need

    across = min(len(class_names), 5)
    down = -(-len(class_names) // across)
    figure = Figure(figsize=(3.1 * across, 3.2 * down + 0.6), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).flatten()
    for c, axis in enumerate(axes):
        if c >= len(class_names):
            axis.axis("off")
            continue
        for number, model in enumerate(models):
            rows = known(model.truth.targets[:, c])
            targets, scores = model.truth.targets[rows, c].numpy(), model.scores[rows, c].numpy()
            if 0 < targets.sum() < len(targets):
                stands_out = number == len(models) - 1
                style = {"color": "C3", "linewidth": 1.8} if stands_out else {"color": "0.6", "linewidth": 0.8}
                axis.plot(*_points(kind, targets, scores), label=model.name, **style)
        for number, (name, points) in enumerate(readers.items()):
            recall = float(points["sensitivity"][c])
            other = float(points["precision"][c]) if kind == "pr" else 1 - float(points["specificity"][c])
            place = (recall, other) if kind == "pr" else (other, recall)
            axis.plot(*place, "os^Dv<>"[number % 7], color="black", markersize=5, label=name)
        labels = ("recall", "precision") if kind == "pr" else ("1 - specificity", "sensitivity")
        axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=labels[0], title=class_names[c])
        axis.set_ylabel(labels[1] if c % across == 0 else "")
        axis.grid(alpha=0.3)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 7), frameon=False, fontsize=8)
    with whole_file(path, "wb") as file:
        figure.savefig(file, format="png", dpi=110)


def _points(kind: str, targets: Any, scores: Any) -> tuple[Any, Any]:
    if kind == "roc":
        false_positive, true_positive, _ = roc_curve(targets, scores)
        return false_positive, true_positive
    precision, recall, _ = precision_recall_curve(targets, scores)
    return recall, precision
