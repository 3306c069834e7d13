"""The look of our figures: one role, one colour and one dash in every chapter.

    show.use()                                          # once, in a notebook's first cell
    fig, ax = plt.subplots()
    ax.plot(steps, loss, label="measured", **show.STYLE["measured"])
    ax.plot(steps, law, label="predicted", **show.STYLE["predicted"])
    show.finish(ax, "step (1)", "loss (nat/token)")
    show.label_ends(ax)                                 # names at the curves' ends; call it last

Print a line of numbers beside each figure: figures are not compared when tests run the notebook, text is. More than
about 1,000 points in one scatter make the SVG large: pass `rasterized=True`, which keeps axes and text sharp.
"""

import re
from itertools import pairwise

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedFormatter, FuncFormatter

# At least 4:1 against white and 3:1 against the book's two dark themes. The dash repeats what the colour says.
STYLE = {
    "measured": dict(color="#1b6ca8", ls="-"),
    "predicted": dict(color="#c8553d", ls="--"),
    "reference": dict(color="#6e6e6e", ls=":"),
}
_CYCLE = [  # curves that have no role, in order
    ("#1b6ca8", "-"),
    ("#c8553d", "--"),
    ("#3f7d3a", "-."),
    ("#8a5fb0", (0, (6, 1.5, 1, 1.5, 1, 1.5))),
    ("#94690c", (0, (9, 2.5))),
    ("#6e6e6e", ":"),
]
_RC = {
    "figure.figsize": (
        7.0,
        3.6,
    ),  # inches: 700 by 360 pixels at 100 dots per inch, the width of a page of the book
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,  # room for labels, at a fixed size: a slider's frames do not jump
    "figure.constrained_layout.w_pad": 0.08,  # inches
    "font.size": 11,
    "font.sans-serif": ["DejaVu Sans", "Arial"],  # an SVG repeats the whole list at every text
    "axes.titlesize": 12,
    "axes.labelsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": matplotlib.cycler(
        color=[c for c, _ in _CYCLE], linestyle=[ls for _, ls in _CYCLE]
    ),
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#808080",
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "image.cmap": "viridis",
    "svg.fonttype": "none",  # text stays text: it can be searched and selected, and is drawn in the reader's font
    "svg.hashsalt": "bigmodel-lab",  # ids in an SVG are hashes; without a salt they are random
}
METADATA = {"Date": None, "Creator": None}  # neither a date nor matplotlib's version in the file
_SAVE = {"bbox_inches": None, "metadata": METADATA}  # untrimmed: the size that was asked for
_UNIT = re.compile(r".*\S \([^()\s][^()]*\)", re.DOTALL)


def use() -> None:
    """Set our style, and in a notebook store every figure as PNG and as SVG, with the same bytes in every run.

    JupyterLab hides SVG in a notebook that it does not trust, such as a freshly cloned one, and shows the PNG; the
    book takes the SVG. Settings of the reader's own matplotlibrc are put back to matplotlib's defaults. No seed, no
    thread and no logger is touched.
    """
    matplotlib.rcdefaults()
    matplotlib.rcParams.update(_RC)
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        return
    from IPython.core.pylabtools import select_figure_formats
    from matplotlib_inline.config import InlineBackend

    inline = InlineBackend.instance(parent=shell)
    inline.figure_formats, inline.print_figure_kwargs = (
        {"png", "svg"},
        _SAVE,
    )  # for when pyplot is imported later
    select_figure_formats(shell, inline.figure_formats, **_SAVE)


def finish(ax: Axes, x: str | None = None, y: str | None = None) -> Axes:
    """Label the axes, insist that every label reads `quantity (unit)`, and return `ax`.

    Parameters
    ----------
    ax : matplotlib Axes
    x, y : labels such as "step time (ms)"; None keeps the label that is there. A pure number has the unit (1):
        "speed-up (1)". An axis whose tick labels are words or hidden needs no label.

    Raises ValueError naming the axis whose label lacks its unit.
    """
    if x is not None:
        ax.set_xlabel(x)
    if y is not None:
        ax.set_ylabel(y)
    if ax.axison:
        for letter, axis in (("x", ax.xaxis), ("y", ax.yaxis)):
            label = axis.get_label_text()
            if _needs_unit(axis, letter) and not _UNIT.fullmatch(label):
                raise ValueError(
                    f"the {letter} axis is labelled {label!r}: write the quantity and its unit, such as "
                    f"'step time (ms)'; a pure number has the unit (1), as in 'speed-up (1)'."
                )
    return ax


def _needs_unit(axis: Axis, letter: str) -> bool:
    """Whether numbers stand at the ticks of an axis."""
    shown = {"x": ("labelbottom", "labeltop"), "y": ("labelleft", "labelright")}[letter]
    if not axis.get_visible() or not any(axis.get_tick_params().get(side, False) for side in shown):
        return False
    if (
        isinstance(axis.get_major_formatter(), FixedFormatter | FuncFormatter)
        or axis.get_units() is not None
    ):
        names = [t.get_text() for t in axis.get_ticklabels() if t.get_text()]
        # a digit, and no letter in front or two side by side: "4x" and "10 %" are numbers, "c18-p99" and "layer 3" names
        name = re.compile(r"[^\W\d_]|.*[^\W\d_]{2}")
        return any(re.search(r"\d", text) and not name.match(text) for text in names)
    return len(axis.get_majorticklocs()) > 0


def label_ends(ax: Axes, size: float = 10.5) -> Axes:
    """Write each curve's name (its `label=`) beside its right end, in its colour, instead of a legend; return `ax`.

    The names stand in one column right of the axes, in the order of the curves' ends and spaced apart; a thin line
    leads from a curve to its name. Call it last: limits and scales that change afterwards move the curves away.

    Parameters
    ----------
    ax : matplotlib Axes with lines, whose ends are finite points
    size : font size in points

    Raises ValueError if no curve has a label, one has no finite point, or the names need more height than there is.
    """
    lines = [
        line
        for line in ax.get_lines()
        if line.get_visible() and not line.get_label().startswith("_")
    ]
    if not lines:
        raise ValueError("no curve has a name: pass label='...' to plot.")
    if ax.get_legend():
        ax.get_legend().remove()
    ax.autoscale(False)
    fig = ax.get_figure(root=True)
    fig.draw_without_rendering()  # settles the layout, hence how high the axes are

    ends = np.array([_end(line) for line in lines])  # (n, 2), in data coordinates
    box = ax.get_window_extent()
    wanted = (
        ax.transData.transform(ends)[:, 1] - box.y0
    ) / box.height  # (n,), 0 at the bottom, 1 at the top
    column = 1.0 + 18 / 72 * fig.dpi / box.width  # right of the axes by 18 points
    texts = [
        ax.text(
            column,
            y,
            line.get_label(),
            color=line.get_color(),
            fontsize=size,
            va="center",
            transform=ax.transAxes,
        )
        for line, y in zip(lines, wanted, strict=True)
    ]
    pixels = np.array([text.get_window_extent().height for text in texts])
    heights = pixels / box.height * 1.12
    if heights.sum() > 1 and len(texts) > 1:
        for text in texts:
            text.remove()
        raise ValueError(
            f"{len(texts)} names do not fit beside axes that are {box.height / fig.dpi:.1f} inches high, which hold "
            f"{int(1 / heights.mean())}: name fewer curves, or make the figure higher."
        )
    for text, line, end, y in zip(texts, lines, ends, _spread(wanted, heights), strict=True):
        text.set_y(y)
        ax.annotate(
            "",
            xy=end,
            xytext=(column - 3 / 72 * fig.dpi / box.width, y),
            textcoords="axes fraction",
            arrowprops=dict(
                arrowstyle="-", color=line.get_color(), lw=0.8, alpha=0.7, shrinkA=0, shrinkB=2
            ),
            annotation_clip=False,
        )
    return ax


def _end(line) -> tuple[float, float]:
    """Return the line's finite point that lies furthest to the right."""
    x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
    finite = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if not len(finite):
        raise ValueError(f"the curve {line.get_label()!r} has no finite point.")
    at = finite[np.argmax(x[finite])]
    return x[at], y[at]


def _spread(wanted: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Return positions near `wanted` (n,) in [0, 1] at which labels of `heights` (n,) keep their order and do not overlap.

    The heights add up to 1 at most.

    Least squares under "each at least half of both heights above the one below". Without the heights that is isotonic
    regression, solved by pooling neighbours that are out of order (Barlow et al. 1972).
    """
    order = np.argsort(wanted, kind="stable")
    sizes = heights[order]
    floors = np.concatenate(
        [[0], np.cumsum((sizes[:-1] + sizes[1:]) / 2)]
    )  # each label's height over the lowest one
    pools: list[list[float]] = []  # [sum, count]
    for value in wanted[order] - floors:
        pools.append([value, 1])
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            total, count = pools.pop()
            pools[-1][0] += total
            pools[-1][1] += count
    level = np.concatenate([np.full(int(count), total / count) for total, count in pools])
    low, high = (
        sizes[0] / 2,
        1 - floors[-1] - sizes[-1] / 2,
    )  # keep the column within the axes if it fits
    level = np.clip(level, low, high) if low <= high else np.full(len(level), (low + high) / 2)
    placed = np.empty(len(wanted))
    placed[order] = level + floors
    assert all(b > a for a, b in pairwise(placed[order])), "labels out of order"
    return placed
