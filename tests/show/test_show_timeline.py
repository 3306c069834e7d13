"""A trace as a figure: lanes, boxes and names."""

import io

import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_hex

from bigmodel_lab import show
from bigmodel_lab.dist.timeline import Span, Trace

BOTH = (0, 1)
LANES = [
    [
        Span("forward", "compute", 5, 8),
        Span("all_reduce", "collective", 8, 10, 8, False, BOTH, 0),
    ],
    [
        Span("forward", "compute", 5, 9),
        Span("all_reduce", "collective", 9, 10, 8, False, BOTH, 0),
    ],
]


@pytest.fixture
def ax():
    fig, ax = plt.subplots(figsize=(6, 2))
    yield ax
    plt.close(fig)


def boxes(ax):
    """Each kind's boxes in all lanes, (left, right, top, bottom) in data coordinates, by face colour."""
    found = {}
    for collection in ax.collections:
        for path in collection.get_paths():
            (x0, y0), (x1, y1) = path.get_extents().min, path.get_extents().max
            box = tuple(round(float(v), 6) for v in (x0, x1, y0, y1))
            found.setdefault(to_hex(collection.get_facecolor()[0]), []).append(box)
    return found


def test_lanes_and_boxes(ax):
    assert show.timeline(Trace.of(LANES), ax) is ax
    found = boxes(ax)
    assert found[show.STYLE["measured"]["color"]] == [(0, 3000, 0.1, 0.9), (0, 4000, 1.1, 1.9)]
    assert [b[:2] for b in found[show.STYLE["predicted"]["color"]]] == [(3000, 5000), (4000, 5000)]
    assert [b[:2] for b in found["#f2f2f2"]] == [(3000, 4000)]  # rank 0, until rank 1 comes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["rank 0", "rank 1"]
    assert ax.get_ylim() == (2, 0)  # rank 0 on top
    assert ax.get_xlabel() == "time (ms)"
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [
        "computing",
        "collective",
        "waiting",
    ]
    assert [t.get_text() for t in ax.texts] == ["forward", "forward"]


def test_what_is_hatched_is_what_waits(ax):
    show.timeline(Trace.of(LANES), ax)
    hatched = [c for c in ax.collections if c.get_hatch()]
    assert [to_hex(c.get_facecolor()[0]) for c in hatched] == ["#f2f2f2"]


def test_the_background_has_a_part_of_its_own(ax):
    behind = Span("all_reduce", "collective", 6, 9, 8, True, BOTH, 1)
    show.timeline(Trace.of([[*LANES[0], behind], LANES[1]]), ax)
    low = boxes(ax)[show.STYLE["predicted"]["color"]]
    assert (1000, 4000, 0.64, 0.86) in low
    assert all(top < 0.64 for _, _, top, _ in boxes(ax)[show.STYLE["measured"]["color"]][:1])


def test_names_only_where_they_fit(ax):
    short = Span("short", "compute", 9.99, 10)
    show.timeline(Trace.of([[*LANES[0], short]]), ax)
    assert [t.get_text() for t in ax.texts] == ["forward"]
    ax.clear()
    show.timeline(Trace.of(LANES), ax, names=False)
    assert not ax.texts


def test_an_empty_trace_is_refused(ax):
    with pytest.raises(ValueError, match="the trace has no spans"):
        show.timeline(Trace.of([[], []]), ax)


def test_the_same_trace_gives_the_same_file():
    def svg():
        show.use()
        fig, ax = plt.subplots()
        show.timeline(Trace.of(LANES), ax)
        file = io.BytesIO()
        fig.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(fig)
        return file.getvalue()

    assert svg() == svg()
