"""Formulas to HTML while the book is built: KaTeX, run by QuickJS and remembered on disk.

A page therefore loads no program for its formulas, only KaTeX's style sheet and fonts, and a formula that KaTeX does not
understand stops the build. Each formula is written twice into the page, as MathML for screen readers and as spans for
the eye. About 5 ms a formula the first time.
"""

import hashlib
import html
import json
import os
import re
from pathlib import Path

KATEX = Path(__file__).parent / "katex" / "katex.min.js"
MARKDOWN_PUNCTUATION = re.compile(r"""[&<>*_\\`\[\]|~^$'"!.()\-#{}+=:]""")


def hide_from_markdown(markup: str) -> str:
    """Return `markup` on one line with the punctuation of its text as entities, so that Markdown leaves it alone."""

    def entities(match):
        text = html.unescape(match[1])
        return ">" + MARKDOWN_PUNCTUATION.sub(lambda c: f"&#{ord(c[0])};", text) + "<"

    return re.sub(r">([^<>]+)<", entities, re.sub(r"\s*\n\s*", " ", markup))


class Maths:
    """Renders TeX, and keeps what it rendered in one file under `cache_dir`.

    The file is named by KaTeX and by this module, so that a new version of either starts afresh.
    """

    def __init__(self, cache_dir: Path):
        version = hashlib.sha256(KATEX.read_bytes() + Path(__file__).read_bytes()).hexdigest()[:12]
        self.store = cache_dir / f"katex-{version}.json"
        self.known = json.loads(self.store.read_text("utf-8")) if self.store.exists() else {}
        self._new = {}
        self._katex = None

    def render(self, tex: str, *, display: bool) -> str:
        """Return one line of HTML for the formula `tex`, which Markdown passes through unchanged.

        Raises ValueError with KaTeX's own message if the formula is not one.
        """
        tex = tex.strip()
        key = ("display:" if display else "inline:") + tex
        if key not in self.known:
            self.known[key] = self._new[key] = hide_from_markdown(self._run(tex, display))
        return self.known[key]

    def _run(self, tex, display):
        import quickjs  # only when there is a formula that is not in the store

        if self._katex is None:
            context = quickjs.Context()
            context.eval(KATEX.read_text("utf-8"))
            # quickjs-ng 0.17 cannot return the "rope" strings that KaTeX builds; JSON.stringify makes a flat one.
            context.eval(
                "globalThis.render = (tex, displayMode) =>"
                " JSON.stringify(katex.renderToString(tex, {displayMode, strict: 'ignore'}))"
            )
            self._katex = context.get("render")
        try:
            markup = json.loads(self._katex(tex, display))
        except quickjs.JSException as error:
            raise ValueError(str(error).splitlines()[0].removeprefix("ParseError: ")) from None
        # The TeX source that MathML carries along would be a third copy of the formula for the search to find.
        return re.sub(r"<annotation.*?</annotation>", "", markup, flags=re.S)

    def save(self) -> None:
        """Add the new formulas to the file."""
        if self._new:
            keep(self.store, json.dumps(self.known, ensure_ascii=False))


def keep(path: Path, content: str) -> None:
    """Write a file of the cache, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(content, "utf-8")
    os.replace(part, path)
