"""A slider over figures: live in JupyterLab, and in the book with no server.

    def draw(lr):
        fig, ax = plt.subplots()
        ax.plot(descend(lr))
        show.finish(ax, "step (1)", "loss (nat)")
        return fig

    show.explore(draw, lr=[0.01, 0.1, 1.0], caption=lambda lr: f"after 50 steps the loss is {descend(lr)[-1]:.2f}")

Every figure is drawn once, when the cell runs, so that moving the slider is instant and the book shows the same
figures as the notebook. Fix the axis limits in `draw`: a frame is compared with the one before by eye.

The output holds a live view, the first figure as PNG (JupyterLab shows it until the notebook is trusted and run), what
there is to see in words, and for the book `application/vnd.bigmodel-lab.frames+json`:

    {"names": [str], "choices": [[str]], "frames": [svg], "captions": [str]}

with frames and captions in the order of `itertools.product(*choices)`, the last name varying fastest.
"""

import base64
import html
import io
import math
import zlib
from collections.abc import Callable, Sequence
from itertools import product

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from bigmodel_lab.show.style import METADATA

FRAMES = "application/vnd.bigmodel-lab.frames+json"
MAX_FRAMES = 60
MAX_BYTES = (
    250_000  # of all frames, compressed as a browser gets them; 12 line plots take about 20,000
)


def explore(
    draw: Callable[..., Figure], *, caption: Callable[..., str] | None = None, **choices: Sequence
) -> None:
    """Show `draw(**values)` under one slider per argument, for every combination of the values in `choices`.

    Parameters
    ----------
    draw : returns a matplotlib Figure; called once for each combination
    caption : returns one line of text for each combination, such as the number to read off. It is compared when tests
        run the notebook, which pictures are not
    choices : for each argument of `draw`, its values, from left to right; together at most 60 combinations

    Raises ValueError if there is nothing to choose, too many combinations or too large pictures, and TypeError if
    `draw` returns no Figure.
    """
    data, png = frames(draw, caption, choices)
    from IPython.display import display

    bundle = _live(
        data
    )._repr_mimebundle_()  # keeps the widget view; its text/plain is replaced by ours
    bundle["text/plain"] = describe(data, captioned=caption is not None)
    bundle["image/png"] = base64.b64encode(png).decode()
    bundle[FRAMES] = data
    display(bundle, raw=True)


def frames(draw, caption, choices: dict[str, Sequence]) -> tuple[dict, bytes]:
    """Draw every combination; return what the book needs, as in this module's docstring, and the first one as PNG."""
    count = math.prod(len(values) for values in choices.values())
    if not choices or not count:
        raise ValueError(
            f"nothing to choose from: pass each argument's values, as in lr=[0.1, 1.0]; got {choices}."
        )
    if count > MAX_FRAMES:
        sizes = " * ".join(f"{len(values)} of {name}" for name, values in choices.items())
        raise ValueError(
            f"{sizes} = {count} figures, and a slider may have {MAX_FRAMES}, all of which are stored in the notebook: "
            "pass fewer values."
        )
    png, pictures, captions = b"", [], []
    for values in product(*choices.values()):
        setting = dict(zip(choices, values, strict=True))
        figure = draw(**setting)
        if not isinstance(figure, Figure):
            raise TypeError(
                f"draw must return a matplotlib Figure, got {type(figure).__name__}: end it by `return fig`."
            )
        if not pictures:
            png = _saved(figure, "png")
        svg = _saved(figure, "svg").decode()
        pictures.append(svg[svg.index("<svg") :])
        plt.close(figure)
        text = (
            caption(**setting)
            if caption
            else ", ".join(f"{k} = {_word(v)}" for k, v in setting.items())
        )
        captions.append(" ".join(text.split()))
    size = len(zlib.compress("".join(pictures).encode()))
    if size > MAX_BYTES:
        raise ValueError(
            f"the {count} figures take {size:,} bytes compressed, and a slider may take {MAX_BYTES:,}: draw fewer "
            "points, or pass rasterized=True to scatter, imshow or plot where there are more than about 1,000."
        )
    words = [[_word(value) for value in values] for values in choices.values()]
    return {"names": list(choices), "choices": words, "frames": pictures, "captions": captions}, png


def describe(data: dict, *, captioned: bool) -> str:
    """Return what the slider shows in words: one line, then one line a frame if captions were computed."""
    parts = [
        f"{name} ({', '.join(words)})"
        for name, words in zip(data["names"], data["choices"], strict=True)
    ]
    count = len(data["frames"])
    lines = [f"Slider over {' and '.join(parts)}: {count} figures, the same in the book."]
    if captioned:
        for words, caption in zip(product(*data["choices"]), data["captions"], strict=True):
            setting = ", ".join(
                f"{name} = {word}" for name, word in zip(data["names"], words, strict=True)
            )
            lines.append(f"{setting}: {caption}")
    return "\n".join(lines)


def _live(data: dict):
    """Return the ipywidgets view: sliders over a picture and its caption."""
    from ipywidgets import HTML, Layout, SelectionSlider, VBox

    sliders = [
        SelectionSlider(
            options=[(word, i) for i, word in enumerate(words)],
            description=name,
            style={"description_width": "initial"},
            layout=Layout(width="30em", max_width="100%"),
        )
        for name, words in zip(data["names"], data["choices"], strict=True)
    ]
    picture = HTML()

    def turn(_=None):
        at = 0
        for slider, words in zip(sliders, data["choices"], strict=True):
            at = at * len(words) + slider.value
        caption = html.escape(data["captions"][at])
        picture.value = (
            f'<div role="img" aria-label="{caption}">{data["frames"][at]}</div><div>{caption}</div>'
        )

    for slider in sliders:
        slider.observe(turn, "value")
    turn()
    return VBox([*sliders, picture])


def _saved(figure: Figure, kind: str) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format=kind, metadata=METADATA)
    return out.getvalue()


def _word(value) -> str:
    """Return how a value is written beside its slider: 0.3, not 0.30000000000000004 or np.float64(0.3)."""
    return f"{value:g}" if isinstance(value, float) else str(value)
