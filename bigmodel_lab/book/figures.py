"""A stored figure as part of the page: its SVG inline, following the light and the dark theme; and the slider's frames.

matplotlib writes black text and lines without naming a colour, so they take the page's. White areas take the page's
background. Every other colour becomes a variable of the figure, which the dark themes set to a twin that can be read on
dark ground. A figure with more than 12 colours is taken for a colour scale, whose colours mean something: it keeps them.

The text of a figure is text (`svg.fonttype: none`): it can be selected, and it is what screen readers are told.
"""

import colorsys
import hashlib
import html
import json
import re
from functools import cache

FRAMES = "application/vnd.bigmodel-lab.frames+json"
NIGHT = (20, 23, 31)  # the dark theme's background, as in assets/book.css
DARK_THEMES = "html:is(.navy,.coal,.ayu)"
COLOUR_SCALE = 12  # figures with more colours than this keep them


def inline(svg: str, fallback: str = "figure") -> str:
    """Return matplotlib's `svg` as one line of HTML; `fallback` describes it if it holds no words."""
    svg = svg[svg.index("<svg") :].rstrip()
    svg = re.sub(
        r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.S
    )
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)  # the style sheet names the page's fonts
    name = "f" + hashlib.sha256(svg.encode()).hexdigest()[:8]
    used = set(re.findall(r'(?:xlink:href="|url\()#([^")]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r'(xlink:href="|url\()#', rf"\g<1>#{name}-", svg)
    label = html.escape(_words(svg) or fallback)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.S)
    svg, night = _themed(svg)
    if night:
        night = f"<style>{DARK_THEMES} #{name}{{{night}}}</style>"
    head = f'<svg id="{name}" class="plot" role="img" aria-label="{label}" fill="currentColor" '
    svg = re.sub(r"<svg ([^>]*)>", rf"{head}\1>{night}", svg, count=1)
    return " ".join(map(str.strip, svg.split("\n")))


def _words(svg):
    """Return the title, labels and other words of a figure, without the numbers on its axes."""
    # A text with a formula is written letter by letter, below a comment that holds it whole.
    found = re.findall(r"<!-- (.*?) -->|<text[^>]*>(.*?)</text>", svg, re.S)
    texts = (re.sub(r"<[^>]*>|[$\\{}]", "", comment or text) for comment, text in found)
    words = (" ".join(html.unescape(text).split()) for text in texts)
    words = dict.fromkeys(w for w in words if re.search(r"[^\W\d]{2}", w))
    return f"Figure: {'; '.join(words)}" if words else ""


def _themed(svg):
    """Return the figure with its colours as variables, and the dark theme's values for them."""
    white_text = re.compile(r"(<text[^>]*fill: )#ffffff")
    svg = white_text.sub(r"\1white", svg)  # on a coloured ground
    svg = svg.replace("#000000", "currentColor").replace("#ffffff", "var(--bg)")
    colours = dict.fromkeys(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", svg))
    if len(colours) > COLOUR_SCALE:
        return svg, ""
    night = ""
    for i, colour in enumerate(colours):
        twin = night_twin(colour)
        if twin != colour:
            svg = svg.replace(f": {colour}", f": var(--c{i}, {colour})")
            night += f"--c{i}:{twin};"
    return svg, night


@cache
def night_twin(colour: str) -> str:
    """Return what "#rrggbb" should be on dark ground: greys turned over, other colours light enough to be read."""
    r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    if max(r, g, b) - min(r, g, b) < 12:
        grey = 45 + round((255 - r) * 210 / 255)  # a faint grid stays faint, and can still be seen
        return f"#{grey:02x}{grey:02x}{grey:02x}"
    hue, light, saturation = colorsys.rgb_to_hls(r / 255, g / 255, b / 255)
    while contrast((r, g, b), NIGHT) < 5 and light < 0.95:
        light += 0.01
        r, g, b = (round(255 * c) for c in colorsys.hls_to_rgb(hue, light, saturation))
    return f"#{r:02x}{g:02x}{b:02x}"


def contrast(one, other) -> float:
    """Return the contrast of two (r, g, b) colours, 1 to 21, as WCAG 2.1 defines it."""

    def luminance(rgb):
        parts = [c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def slider(data: dict, description: str, add_asset) -> str:
    """Return a figure with a slider for each name: the first frame in the page, all frames in a script of their own.

    data : what `show.explore` stored: names, choices, frames in product order (last name fastest), captions
    description : what is shown beside the first frame where there is no JavaScript
    add_asset : stores bytes under a name and returns the address to use in the page
    """
    wanted = 1
    for choices in data["choices"]:
        wanted *= len(choices)
    if not wanted == len(data["frames"]) == len(data["captions"]):
        raise ValueError(
            f"the slider over {', '.join(data['names'])} has {wanted} states, but {len(data['frames'])} frames"
            f" and {len(data['captions'])} captions: run the cell again."
        )
    frames = [
        inline(frame, caption)
        for frame, caption in zip(data["frames"], data["captions"], strict=True)
    ]
    script = f"bookFrames({json.dumps([frames, data['captions']], ensure_ascii=False)});\n"
    address = add_asset(script.encode(), ".js")
    inputs = "".join(
        f"<label><span>{html.escape(name)}</span>"
        f'<input type="range" min="0" max="{len(choices) - 1}" value="0" step="1" autocomplete="off"'
        f' aria-valuetext="{html.escape(choices[0])}" data-choices="{html.escape(json.dumps(choices))}">'
        f"<output>{html.escape(choices[0])}</output></label>"
        for name, choices in zip(data["names"], data["choices"], strict=True)
    )
    caption = html.escape(data["captions"][0])
    words = "<br>".join(html.escape(line) for line in description.strip().split("\n"))
    return (
        f'<figure class="slider" data-frames="{address}"><div class="controls">{inputs}</div>'
        f'<div class="frame">{frames[0]}</div><figcaption aria-live="polite">{caption}</figcaption>'
        f'<p class="without-script">{words}</p></figure>'
    )
