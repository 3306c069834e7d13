"""bigmodel_lab/show/style.py: readable colours, units on the axes, names that do not overprint, stable bytes."""

import io
import random
import subprocess
import sys
from itertools import combinations

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

from bigmodel_lab import show
from bigmodel_lab.show import style


@pytest.fixture(autouse=True)
def our_style():
    with matplotlib.rc_context():
        plt.switch_backend("agg")
        show.use()
        yield
        plt.close("all")


def luminance(colour):
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(a, b):
    """Contrast of two colours as WCAG 2.1 defines it, from 1 to 21."""
    low, high = sorted([luminance(a), luminance(b)])
    return (high + 0.05) / (low + 0.05)


def colours():
    return {look["color"] for look in show.STYLE.values()} | {
        look["color"] for look in matplotlib.rcParams["axes.prop_cycle"]
    }


def test_contrast_is_the_known_one():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize(
    ("page", "least"),
    [
        ("#ffffff", 4),  # light, rust and JupyterLab
        ("#161923", 3),  # the book's navy
        ("#141617", 3),  # coal
    ],
)
def test_colours_stand_out_on_every_page(page, least):
    assert {c: contrast(c, page) for c in colours() if contrast(c, page) < least} == {}


def test_dashes_repeat_what_colours_say():
    assert len({look["ls"] for look in show.STYLE.values()}) == len(show.STYLE)
    assert len({str(look["linestyle"]) for look in matplotlib.rcParams["axes.prop_cycle"]}) == 6


def test_use_touches_no_seed_and_undoes_the_readers_matplotlibrc():
    np.random.seed(7)  # noqa: NPY002  the global state is what must not change
    random.seed(7)
    before = np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    matplotlib.rcParams["axes.facecolor"] = "black"
    show.use()
    assert matplotlib.rcParams["axes.facecolor"] == "white"
    assert (np.random.get_state()[1] == before[0]).all()  # noqa: NPY002
    assert random.getstate() == before[1]


def test_outside_a_notebook_use_works_without_ipython():
    code = "import sys; from bigmodel_lab import show; show.use(); print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


def test_a_figure_is_saved_with_the_same_bytes():
    def saved(kind):
        fig, ax = plt.subplots()
        ax.plot([1, 2, 3], label="a")
        ax.fill_between([0, 1, 2], [1, 2, 3], hatch="/")  # clip paths and hatches get hashed ids
        show.finish(ax, "x (1)", "y (1)")
        show.label_ends(ax)
        out = io.BytesIO()
        fig.savefig(out, format=kind, **style._SAVE)
        return out.getvalue()

    for kind in ("svg", "png"):
        assert saved(kind) == saved(kind)
    assert b"<text" in saved("svg")  # text is text, not outlines
    assert b"Matplotlib v" not in saved("svg")


# ---- finish


def test_finish_labels_and_returns_the_axes():
    ax = plt.figure().add_subplot()
    ax.plot([1, 2])
    assert show.finish(ax, "step time (ms)", "loss (nat/token)") is ax
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step time (ms)", "loss (nat/token)")
    assert show.finish(ax) is ax


@pytest.mark.parametrize(
    "label", ["loss (nat)", "speed-up (1)", "rate (1/s)", "$\\Delta$ loss\nper step (nat)"]
)
def test_labels_that_pass(label):
    ax = plt.figure().add_subplot()
    ax.plot([1, 2])
    show.finish(ax, label, label)


@pytest.mark.parametrize(
    "label", ["", "loss", "(nat)", "loss ()", "loss (nat) ", "loss(nat)", "loss (nat) of a model"]
)
@pytest.mark.parametrize("axis", ["x", "y"])
def test_labels_without_a_unit_are_refused(axis, label):
    ax = plt.figure().add_subplot()
    ax.plot([1, 2])
    labels = {"x": "step (1)", "y": "step (1)", axis: label}
    with pytest.raises(
        ValueError, match=f"the {axis} axis is labelled .*: write the quantity and its unit"
    ):
        show.finish(ax, **labels)


def test_axes_without_numbers_need_no_label():
    _, axes = plt.subplots(2, 2, sharex=True)
    axes[0, 0].plot([1, 2])
    show.finish(axes[0, 0], y="y (1)")  # the numbers of x stand under the axes below
    axes[1, 0].bar([0, 1], [1, 2])
    axes[1, 0].set_xticks([0, 1], ["naive", "numba 2 threads"])
    show.finish(axes[1, 0], y="y (1)")
    axes[1, 1].axis("off")
    show.finish(axes[1, 1])
    ax = plt.figure().add_subplot()
    ax.bar(["naive", "numba"], [1, 2])
    show.finish(ax, y="y (1)")
    ax.set_xticks([0, 1], ["c18-p99", "L1"])  # names with a digit in them
    show.finish(ax)
    ax.set_xticks([0, 1], ["10", "20k"])
    with pytest.raises(ValueError, match="the x axis"):
        show.finish(ax)
    ax.set_xticks([])
    show.finish(ax)


# ---- label_ends


def labelled(curves, **options):
    fig, ax = plt.subplots(**options)
    for name, (x, y) in curves.items():
        ax.plot(x, y, label=name)
    show.finish(ax, "x (1)", "y (1)")
    show.label_ends(ax)
    fig.draw_without_rendering()
    boxes = {t.get_text(): t.get_window_extent() for t in ax.texts if t.get_text()}
    return fig, ax, boxes


def test_names_stand_apart_inside_the_figure_in_the_order_of_the_ends():
    x = np.arange(10.0)
    curves = {f"curve {k}": (x, x + 0.01 * k) for k in (3, 0, 2, 1, 4)}
    fig, ax, boxes = labelled(curves)
    assert sorted(boxes, key=lambda name: boxes[name].y0) == [f"curve {k}" for k in range(5)]
    assert not any(a.overlaps(b) for a, b in combinations(boxes.values(), 2))
    frame, axes_box = fig.bbox, ax.get_window_extent()
    for box in boxes.values():
        assert box.x0 > axes_box.x1
        assert frame.x0 <= box.x0 <= box.x1 <= frame.x1
        assert frame.y0 <= box.y0 <= box.y1 <= frame.y1


def test_a_name_that_has_room_stands_at_the_height_of_its_end():
    x = np.arange(1.0, 10.0)
    _, ax, boxes = labelled({"low": (x, x), "high": (x, x**2), "_hidden": (x, x**1.5)})
    assert set(boxes) == {"low", "high"}
    for name, y in (("low", 9.0), ("high", 81.0)):
        wanted = ax.transData.transform((9.0, y))[1]
        box = boxes[name]
        assert box.y0 <= wanted <= box.y1


def test_curves_that_end_in_nan_or_run_backwards():
    x = np.arange(10.0)
    _, _, boxes = labelled({"stops": (x, np.where(x < 5, x, np.nan)), "back": (x[::-1], x)})
    assert boxes["stops"].y0 > boxes["back"].y0


def test_curves_without_a_name_or_an_end_are_refused():
    ax = plt.figure().add_subplot()
    ax.plot([1, 2])
    with pytest.raises(ValueError, match="no curve has a name"):
        show.label_ends(ax)
    ax.plot([np.nan, np.nan], label="lost")
    with pytest.raises(ValueError, match="the curve 'lost' has no finite point"):
        show.label_ends(ax)


def test_more_names_than_fit_are_refused_and_leave_nothing():
    x = np.arange(10.0)
    labelled({f"c{k}": (x, x * 0 + 1) for k in range(12)})
    with pytest.raises(
        ValueError,
        match=r"30 names do not fit beside axes that are 3.\d inches high, which hold \d+:",
    ):
        labelled({f"c{k}": (x, x * 0 + 1) for k in range(30)})
    assert not plt.gca().texts


@given(st.lists(st.floats(-1, 2), min_size=1, max_size=8), st.floats(0.01, 0.125))
def test_spread_keeps_order_and_distance(wanted, height):
    wanted = np.array(wanted)
    placed = style._spread(wanted, np.full(len(wanted), height))
    order = np.argsort(wanted, kind="stable")
    assert (np.diff(placed[order]) >= height * (1 - 1e-9)).all()
    assert placed.min() >= height / 2 - 1e-9
    assert placed.max() <= 1 - height / 2 + 1e-9


def test_spread_moves_as_little_as_possible():
    apart = np.array([0.8, 0.2, 0.5])
    assert style._spread(apart, np.full(3, 0.1)) == pytest.approx(apart)
    # 0.5 and 0.52 share what is missing; 0.9 is free
    assert style._spread(np.array([0.5, 0.9, 0.52]), np.full(3, 0.1)) == pytest.approx(
        [0.46, 0.9, 0.56]
    )
