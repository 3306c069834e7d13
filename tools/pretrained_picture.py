"""Write docs/pretrained_loss.png: how the loss of the GPT that ships fell, drawn from its record."""

import io
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from bigmodel_lab import models, show
from bigmodel_lab.train import RunRecord, validation_curve

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "pretrained_loss.png"
LANGUAGES = ("English", "Chinese")


def draw(record: RunRecord) -> plt.Figure:
    """Training loss (a mean over 50 steps), held-out loss, and the n-gram models', each the mean of the two languages."""
    show.use()
    steps, held_out = validation_curve(record)
    rows = len(record.loss) // 50 * 50
    training = np.array(record.loss[:rows]).reshape(-1, 50).mean(1)
    ngram = np.mean([record.scores[f"{name}: n-gram, nats per token"] for name in LANGUAGES])
    figure, ax = plt.subplots(figsize=(7.2, 3.6))
    ax.plot(
        np.arange(25, rows, 50), training, label="training, with dropout", **show.STYLE["predicted"]
    )
    ax.plot(steps, held_out, label="held out", **show.STYLE["measured"])
    ax.plot([0, steps[-1]], [ngram, ngram], label="5-gram, held out", **show.STYLE["reference"])
    ax.set_ylim(3.3, 6.2)
    show.label_ends(ax)
    show.finish(ax, "optimiser step (1)", "loss (nat/token)")
    return figure


def drawn() -> bytes:
    """The picture's bytes; the same record gives the same ones."""
    figure, file = draw(RunRecord.load(models.PRETRAINED / "record.json")), io.BytesIO()
    figure.savefig(file, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    return file.getvalue()


if __name__ == "__main__":
    PICTURE.write_bytes(drawn())
