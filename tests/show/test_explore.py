"""bigmodel_lab/show/explore.py: the frames that the book gets, the words, the limits, and the live view."""

import base64
import io
from itertools import product

import matplotlib
import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest

from bigmodel_lab import show

FRAMES = "application/vnd.bigmodel-lab.frames+json"


@pytest.fixture(autouse=True)
def our_style():
    with matplotlib.rc_context():
        plt.switch_backend("agg")
        show.use()
        yield
        plt.close("all")


def draw(**values):
    fig, ax = plt.subplots(figsize=(3, 2))
    ax.plot(np.arange(3.0))
    ax.set_title(" ".join(f"{name}={value}" for name, value in values.items()))
    return fig


@pytest.fixture
def displayed(monkeypatch):
    """What explore puts out: a list of MIME bundles."""
    bundles = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: bundles.append(bundle))
    return bundles


def test_one_output_holds_everything(displayed):
    show.explore(draw, heads=[1, 2], lr=[0.1, 0.1 + 0.2, 1.0])
    (bundle,) = displayed
    assert set(bundle) == {
        FRAMES,
        "application/vnd.jupyter.widget-view+json",
        "image/png",
        "text/plain",
    }
    data = bundle[FRAMES]
    assert set(data) == {"names", "choices", "frames", "captions"}
    assert data["names"] == ["heads", "lr"]
    assert data["choices"] == [["1", "2"], ["0.1", "0.3", "1"]]
    settings = list(product([1, 2], [0.1, 0.1 + 0.2, 1.0]))  # the last name varies fastest
    for (heads, lr), frame, caption in zip(settings, data["frames"], data["captions"], strict=True):
        assert frame.startswith("<svg")
        assert f"heads={heads} lr={lr}<" in frame
        assert caption == f"heads = {heads}, lr = {lr:g}"
    assert (
        bundle["text/plain"]
        == "Slider over heads (1, 2) and lr (0.1, 0.3, 1): 6 figures, the same in the book."
    )
    pixels = matplotlib.image.imread(io.BytesIO(base64.b64decode(bundle["image/png"])))
    assert pixels.shape == (200, 300, 4)
    assert not plt.get_fignums()  # else the last figure is shown a second time


def test_captions_are_put_into_words(displayed):
    show.explore(draw, caption=lambda lr: f"loss\n {lr * 2:.1f}", lr=[0.5, 1.0])
    (bundle,) = displayed
    assert bundle[FRAMES]["captions"] == ["loss 1.0", "loss 2.0"]
    assert bundle["text/plain"].splitlines()[1:] == ["lr = 0.5: loss 1.0", "lr = 1: loss 2.0"]


def test_frames_are_the_same_every_time(displayed):
    show.explore(draw, lr=[0.5, 1.0])
    show.explore(draw, lr=[0.5, 1.0])
    first, second = displayed
    assert first[FRAMES] == second[FRAMES]
    assert first["image/png"] == second["image/png"]


def test_moving_a_slider_shows_the_frame_of_that_setting(displayed):
    import ipywidgets

    show.explore(draw, caption=lambda a, b: f"<{a}{b}>", a=["p", "q"], b=[1, 2, 3])
    widgets = ipywidgets.widgets.widget._instances
    box = widgets[displayed[0]["application/vnd.jupyter.widget-view+json"]["model_id"]]
    a, b, picture = box.children
    frames = displayed[0][FRAMES]["frames"]
    assert frames[0] in picture.value
    b.index = 2
    assert frames[2] in picture.value
    a.index = 1
    assert frames[5] in picture.value
    assert 'aria-label="&lt;q3&gt;"' in picture.value
    assert (a.description, b.description) == ("a", "b")
    assert b.continuous_update


@pytest.mark.parametrize("choices", [{}, {"lr": []}, {"lr": [1], "heads": []}])
def test_nothing_to_choose(choices):
    with pytest.raises(ValueError, match="nothing to choose from"):
        show.explore(draw, **choices)


def test_too_many_frames_are_refused_before_any_is_drawn():
    with pytest.raises(
        ValueError, match=r"8 of a \* 8 of b = 64 figures, and a slider may have 60"
    ):
        show.explore(None, a=range(8), b=range(8))


def test_frames_that_are_too_large_are_refused():
    points = np.random.default_rng(0).normal(size=(2, 8000))

    def scatter(rasterized):
        fig, ax = plt.subplots(figsize=(3, 2))
        ax.scatter(*points, s=2, rasterized=rasterized)
        return fig

    with pytest.raises(ValueError, match=r"bytes compressed.*rasterized=True"):
        show.explore(scatter, rasterized=[False, False, False])


def test_the_way_out_of_too_large_frames_works(displayed):
    points = np.random.default_rng(0).normal(size=(2, 8000))

    def scatter(size):
        fig, ax = plt.subplots(figsize=(3, 2))
        ax.scatter(*points, s=size, rasterized=True)
        return fig

    show.explore(scatter, size=[1, 2, 3])
    assert len(displayed) == 1


def test_draw_must_return_a_figure():
    with pytest.raises(
        TypeError, match="draw must return a matplotlib Figure, got Axes: end it by `return fig`"
    ):
        show.explore(lambda lr: plt.figure().add_subplot(), lr=[1])
