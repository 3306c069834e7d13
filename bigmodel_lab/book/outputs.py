"""A code cell's stored output to one line of HTML.

One line, because a blank line would end Markdown's HTML block in the middle: line breaks inside <pre> become &#10;.
"""

import base64
import html
import re

from bigmodel_lab.book import figures

PICTURES = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def text(value) -> str:
    """Return a notebook's multi-line text, which is stored as a string or as a list of lines."""
    return "".join(value) if isinstance(value, list) else value


def render(output: dict, page) -> str:
    """Return the HTML of one output; "" if it shows nothing.

    page : answers for what depends on the place: `add(data, suffix)` the address of a file of the page,
        `formula(tex, display)`
    """
    kind = output["output_type"]
    if kind == "stream":
        return pre(text(output["text"]), output["name"])
    if kind == "error":
        return _error(output)
    data = {
        mime: value if mime == figures.FRAMES else text(value)
        for mime, value in output["data"].items()
    }
    plain = data.get("text/plain", "")
    if figures.FRAMES in data:
        return figures.slider(data[figures.FRAMES], plain, page.add)
    if "image/svg+xml" in data:
        return f'<figure class="plot">{figures.inline(data["image/svg+xml"], plain or "figure")}</figure>'
    for mime, suffix in PICTURES.items():
        if mime in data:
            address = page.add(base64.b64decode(data[mime]), suffix)
            return f'<figure class="plot"><img src="{address}" alt="{html.escape(plain or "figure")}" loading="lazy"></figure>'
    if "text/html" in data:
        return f'<div class="html">{_one_line(data["text/html"])}</div>'
    if "text/latex" in data:
        tex = data["text/latex"].strip().strip("$").removeprefix(r"\displaystyle")
        return f'<div class="html">{page.formula(tex, True)}</div>'
    return pre(plain, "result")


def pre(content: str, kind: str) -> str:
    """Return preformatted text; `kind` is stdout, stderr, result or error."""
    content = ANSI.sub("", content).replace("\r\n", "\n")
    content = re.sub(
        r"[^\n]*\r", "", content
    ).rstrip()  # a terminal writes over what stands before \r
    if not content:
        return ""
    return f'<pre class="{kind}">{html.escape(content)}</pre>'.replace("\n", "&#10;")


def _error(output):
    """Return an exception: its message in full sight, the way there folded."""
    trace = "\n".join(output["traceback"])
    name, message = output["ename"], ANSI.sub("", output["evalue"])
    line = pre(f"{name}: {message}", "error").replace(
        f">{html.escape(name)}:", f"><strong>{html.escape(name)}</strong>:", 1
    )
    fold = f"<details><summary>Traceback</summary>{pre(trace, 'error')}</details>" if trace else ""
    return f'<div class="error">{line}{fold}</div>'


def _one_line(markup):
    """Return HTML that a library wrote, on one line, without what would change or leave the page."""
    markup = re.sub(r"<(script|style)\b.*?</\1>", "", markup, flags=re.S | re.I)
    outside = re.search(
        r"""(?:\bsrc|<link[^>]*href)\s*=\s*["']?\s*(?:https?:)?//[^"'\s>]*""", markup, re.I
    )
    if outside:
        raise ValueError(
            f"the output loads something from another host ({outside[0]}): store it in the page."
        )
    markup = re.sub(r' border="\d+"', "", markup).replace(
        "<th></th>", "<td></td>"
    )  # an empty header tells nothing
    parts = re.split(r"(<pre\b.*?</pre>)", markup, flags=re.S | re.I)
    return "".join(
        part.replace("\n", "&#10;") if i % 2 else re.sub(r"\s*\n\s*", " ", part)
        for i, part in enumerate(parts)
    )
