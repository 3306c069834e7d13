"""One notebook, or one Markdown file, to the Markdown of its page.

What the tags of a cell do:

    hide-input        the code is folded below its output
    remove-cell       the cell is left out
    solution          the cell is folded
    raises-exception  a stored exception is part of the lesson; without the tag it stops the build
    exercise          with {"exercise": "c05-a"} in the cell's metadata: difficulty, minutes, hints and the reference
                      solution follow, from `bigmodel_lab.course.exercises`
"""

import base64
import hashlib
import html
import posixpath
from pathlib import Path

from bigmodel_lab.book import BookError, outputs, prose
from bigmodel_lab.book.links import Site
from bigmodel_lab.book.maths import Maths, keep
from bigmodel_lab.book.outputs import text

DIFFICULTY = {1: "a line or two", 2: "a derivation", 3: "an idea of your own"}
# With htmlLabels mermaid cuts off the ends of Chinese labels.
MERMAID = {"theme": "neutral", "htmlLabels": False, "flowchart": {"htmlLabels": False}}


class Page:
    """A notebook on its way into the book; also what `prose.convert` and `outputs.render` ask about the place."""

    def __init__(self, file: str, notebook: dict, site: Site, maths: Maths, cache_dir: Path):
        self.file = file  # path in the repository, such as "labs/L02_ranks.ipynb"
        self.cells = notebook["cells"]
        self.site, self.maths, self.cache_dir = site, maths, cache_dir
        self._cell = {}
        self._download = ""
        self._headings = []
        site.anchors[file] = self._find_anchors()

    def _find_anchors(self):
        anchors = {f"cell-id={cell['id']}": cell["id"] for cell in self.cells if "id" in cell}
        ids = set(anchors.values())
        for cell in self.cells:
            if cell["cell_type"] != "markdown" or "remove-cell" in tags(cell):
                continue
            for _, title in prose.titles(text(cell["source"])):
                stem = name = prose.slug(title) or "section"
                n = 0
                while name in ids:
                    n += 1
                    name = f"{stem}-{n}"
                ids.add(name)
                self._headings.append(name)
                anchors.setdefault(title.replace(" ", "-"), name)  # as JupyterLab names it
                anchors.setdefault(name, name)  # as GitHub does
        return anchors

    def markdown(self, download: str = "") -> str:
        """Return the page. `download` is the address of the notebook's file, offered below the title.

        Raises BookError, naming the file and the cell, for what a reader must not see.
        """
        if download:
            name = posixpath.basename(self.file)
            link = f'<a href="{download}" download="{name}">Download {name}</a>'
            self._download = f'<p class="download">{link} to run it.</p>'
        parts = []
        for cell in self.cells:
            self._cell = cell
            if "remove-cell" not in tags(cell):
                try:
                    parts.append(self._render_cell())
                except ValueError as error:
                    raise BookError(f"{self._place()}: {error}") from None
        return "\n\n".join(part for part in parts if part) + "\n"

    def _place(self):
        name = self._cell.get("id")
        return f"{self.file}, cell {name}" if name else self.file

    def _render_cell(self):
        cell, source = self._cell, text(self._cell["source"])
        anchor = f'<a id="{cell["id"]}"></a>\n\n' if "id" in cell else ""
        if cell["cell_type"] == "markdown":
            body = anchor + prose.convert(source, self)
            return prose.folded("Solution", body, "solution") if "solution" in tags(cell) else body
        if cell["cell_type"] != "code" or not source.strip():
            return ""
        code = prose.fenced(source.rstrip(), "python")
        shown = "".join(outputs.render(output, self) for output in self._checked_outputs())
        result = f'<div class="output">{shown}</div>' if shown else ""
        if "hide-input" in tags(cell):
            body = "\n\n".join([result, prose.folded("Code", code, "code")])
        else:
            body = "\n\n".join([code, result])
        body = f'<div class="cell" id="{cell.get("id", "")}">\n\n{body}\n\n</div>'
        if "solution" in tags(cell):
            body = prose.folded("Solution", body, "solution")
        return body + (f"\n\n{self._exercise()}" if "exercise" in tags(cell) else "")

    def _checked_outputs(self):
        cell = self._cell
        if cell.get("execution_count") is None:
            raise ValueError(f"the cell has not been run. `make notebooks NB={self.file}` runs it.")
        for output in cell["outputs"]:
            if output["output_type"] == "error" and "raises-exception" not in tags(cell):
                raise ValueError(
                    f"the stored output is an error ({output['ename']}: {output['evalue']}). Mend the cell and"
                    " run it again; if the error is part of the lesson, tag the cell raises-exception."
                )
        return cell["outputs"]

    def _exercise(self):
        from bigmodel_lab.course import exercises  # brings numpy: only for pages that need it

        name = self._cell["metadata"].get("exercise")
        if not name:
            raise ValueError(
                'the cell is tagged exercise: its metadata must name it, {"exercise": "c05-a"}.'
            )
        exercise = exercises.get(name)
        level = f"difficulty {exercise.difficulty} of 3 ({DIFFICULTY[exercise.difficulty]})"
        facts = f"{html.escape(exercise.title)}: {level}, about {exercise.minutes} minutes"
        parts = [f'<p class="facts"><strong>Exercise {exercise.id}.</strong> {facts}.</p>']
        for i, hint in enumerate(exercise.hints, 1):
            summary = f"Hint {i} of {len(exercise.hints)}"
            parts.append(prose.folded(summary, prose.convert(hint, self), "hint"))
        solution = prose.fenced(exercise.solution_source, "python")
        parts.append(prose.folded("Reference solution", solution, "solution"))
        return '<div class="exercise">\n\n' + "\n\n".join(parts) + "\n\n</div>"

    # What prose.convert and outputs.render ask for.

    def formula(self, tex: str, display: bool) -> str:
        """Return the HTML of a formula."""
        try:
            return self.maths.render(tex, display=display)
        except ValueError as error:
            raise ValueError(
                f"KaTeX does not understand the formula {tex.strip()!r}. {error}"
            ) from None

    def href(self, url: str, *, picture: bool = False) -> str:
        """Return the address of what `url` names."""
        if url.startswith("attachment:"):
            ((mime, data),) = self._cell["attachments"][url.removeprefix("attachment:")].items()
            return self.add(base64.b64decode(data), outputs.PICTURES[mime])
        return self.site.href(url, self.file, picture=picture)

    def heading(self) -> str:
        """Return the id of the next heading."""
        return self._headings.pop(0)

    def after_title(self) -> str:
        """Return the line with the notebook to download, once."""
        line, self._download = self._download, ""
        return line

    def add(self, data: bytes, suffix: str) -> str:
        """Store a file of the page and return its address."""
        return self.site.relative(self.site.assets.add(data, suffix), self.file)

    def diagram(self, source: str) -> str:
        """Return a Mermaid diagram as a picture: about 2 s the first time, remembered on disk."""
        store = self.cache_dir / f"mermaid-{hashlib.sha256(source.encode()).hexdigest()[:16]}.svg"
        if not store.exists():
            import mermaidx

            try:
                keep(store, mermaidx.render(source, config=MERMAID).svg())
            except RuntimeError as error:
                raise ValueError(f"Mermaid does not understand a diagram: {error}") from None
        address = self.add(store.read_bytes(), ".svg")
        words = html.escape(" ".join(source.split()))
        return f'<p class="diagram"><img src="{address}" alt="Diagram: {words}" loading="lazy"></p>'


def tags(cell: dict) -> list[str]:
    """Return the tags of a cell."""
    return cell["metadata"].get("tags", [])
