"""A trace of ranks as a figure: one lane a rank, what it computed, sent and waited for.

    fig, ax = plt.subplots()
    show.timeline(trace, ax)            # a `bigmodel_lab.dist.timeline.Trace`

The high part of a lane is the rank's main thread: computing filled, a collective in the other colour, waiting hatched. The low
part, where there is one, is what travelled in the background meanwhile. Used in labs L02, L04 and L05.
"""

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from bigmodel_lab.show.style import STYLE, finish

__all__ = ["timeline"]

_LOOK = {
    "computing": dict(facecolor=STYLE["measured"]["color"], edgecolor="white", linewidth=0.5),
    "collective": dict(facecolor=STYLE["predicted"]["color"], edgecolor="white", linewidth=0.3),
    "waiting": dict(
        facecolor="#f2f2f2", edgecolor=STYLE["reference"]["color"], hatch="//////", linewidth=0.0
    ),
}
_HIGH, _LOW = (
    (0.08, 0.52),
    (0.64, 0.22),
)  # of a lane that is 1 high: where a part begins, its height


def timeline(trace, ax: Axes, *, names: bool = True) -> Axes:
    """Draw the trace on `ax` and return it.

    Parameters
    ----------
    trace : a `dist.timeline.Trace`
    ax : matplotlib Axes; about half an inch of height a rank is enough
    names : write the name of a computation into its box, where it fits

    Raises ValueError for a trace without spans.
    """
    if not any(trace.lanes):
        raise ValueError(
            "the trace has no spans: mark computations, and pass the recorder as wire."
        )
    in_background = any(s.background for lane in trace.lanes for s in lane)
    high = _HIGH if in_background else (0.1, 0.8)
    shown = set()

    def draw(kind, intervals, rank, part):
        widths = [(start * 1e3, (end - start) * 1e3) for start, end in intervals]
        if widths:
            ax.broken_barh(widths, (rank + part[0], part[1]), **_LOOK[kind])
            shown.add(kind)

    ax.set_xlim(0, trace.length_s * 1e3)
    ax.set_ylim(len(trace.lanes), 0)
    for rank, lane in enumerate(trace.lanes):
        for kind, which in (("computing", "compute"), ("collective", "collective")):
            spans = [s for s in lane if s.kind == which]
            draw(kind, [s[2:4] for s in spans if not s.background], rank, high)
            draw(kind, [s[2:4] for s in spans if s.background], rank, _LOW)
        draw("waiting", trace.waiting(rank), rank, high)
        if names:
            for s in lane:
                if s.kind == "compute":
                    _name(ax, s, rank + high[0] + high[1] / 2)
    ax.set_yticks([r + 0.5 for r in range(len(trace.lanes))])
    ax.set_yticklabels([f"rank {r}" for r in range(len(trace.lanes))])
    ax.tick_params(axis="y", length=0)
    ax.grid(False)
    ax.legend(
        handles=[Patch(**_LOOK[kind], label=kind) for kind in _LOOK if kind in shown],
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=len(_LOOK),
        borderaxespad=0.2,
    )
    return finish(ax, "time (ms)")


def _name(ax, span, y) -> None:
    """Write the span's name into its box if there is room: a letter of 7 points is some 5 points wide."""
    start, end = (ax.transData.transform((t * 1e3, 0))[0] for t in (span.start_s, span.end_s))
    points = (end - start) / ax.get_figure(root=True).dpi * 72
    if points >= 5 * len(span.name) + 2:
        middle = (span.start_s + span.end_s) / 2 * 1e3
        ax.text(middle, y, span.name, ha="center", va="center", fontsize=7, color="white")
