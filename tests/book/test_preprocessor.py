"""The whole book, built by mdBook: a small one of our own with everything in it, and the repository's."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

import matplotlib
import nbformat
import pytest
import quickjs
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from bigmodel_lab.book import figures
from bigmodel_lab.course import exercises

REPO = Path(__file__).resolve().parents[2]
SUMMARY = """# Summary

[Start](README.md)

# Part one 第一部分

- [5 · Networks](c05_networks.ipynb)
  - [6 · Nested](c06_nested.ipynb)

# Labs 实验

- [Lab 2 · Ranks](../labs/L02_ranks.ipynb)
"""


def mdbook(root):
    """Build the book in `root`; return mdBook's exit status and what it said."""
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    env.pop("RUST_LOG", None)
    run = subprocess.run(
        ["mdbook", "build", str(root)], env=env, capture_output=True, text=True, timeout=120
    )
    return run.returncode, run.stdout + run.stderr


def lay_out(root):
    """Put the book's settings and machinery into `root`, as they are in the repository."""
    root.mkdir(parents=True, exist_ok=True)
    shutil.copy(REPO / "book.toml", root)
    (root / "bigmodel_lab").symlink_to(REPO / "bigmodel_lab")
    for folder in ("chapters", "labs"):
        (root / folder).mkdir()


def svg_and_png():
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        fig, ax = plt.subplots(figsize=(3, 2))
        ax.plot([0, 1], [1, 0])
        ax.set_xlabel("time (s)")
        data = {}
        for kind in ("svg", "png"):
            out = io.BytesIO()
            fig.savefig(out, format=kind)
            data[kind] = out.getvalue()
        plt.close(fig)
    return data["svg"].decode(), base64.b64encode(data["png"]).decode()


def code(name, source, *outputs, tags=(), **metadata):
    return new_code_cell(
        source,
        id=name,
        execution_count=1,
        outputs=list(outputs),
        metadata={"tags": list(tags), **metadata},
    )


def text(name, source):
    return new_markdown_cell(source, id=name)


def shown(data):
    return new_output("display_data", data=data)


def networks():
    svg, png = svg_and_png()
    frames = {
        "names": ["rate", "start"],
        "choices": [["0.1", "0.5"], ["-1", "1"]],
        "frames": [svg.replace("time (s)", f"time {i} (s)") for i in range(4)],
        "captions": [f"the loss is {i}" for i in range(4)],
    }
    error = new_output(
        "error", ename="ValueError", evalue="shape (N)\n\nbut (M)", traceback=["a\n\nb <c>"]
    )
    table = (
        "<table>\n<tr><th></th><th>loss</th></tr>\n\n<tr><td>1</td><td>**2**</td></tr>\n</table>"
    )
    return [
        text(
            "c05-question",
            "# Networks / 神经网络\n\nHow does $L$ change with $w_{ij}$? It costs \\$5.",
        ),
        text(
            "c05-core",
            "## Forward pass\n\n$$\n\\begin{aligned} z &= x W^\\top \\\\ a &= f(z) \\end{aligned}\n$$\n",
        ),
        code(
            "c05-run",
            "print('a', '$x$', '[a](b.md)')",
            new_output("stream", text="a\n\n\n  <b> *c* {{d}}\n"),
        ),
        code(
            "c05-figure",
            "plot()",
            shown({"image/svg+xml": svg, "image/png": png}),
            tags=["hide-input"],
        ),
        code("c05-picture", "plot()", shown({"image/png": png, "text/plain": "a picture"})),
        code("c05-table", "t", shown({"text/html": table})),
        code(
            "c05-slider",
            "explore()",
            shown({figures.FRAMES: frames, "text/plain": "Slider over rate."}),
        ),
        code("c05-break", "f()", error, tags=["raises-exception"]),
        text(
            "c05-draw",
            "```mermaid\nflowchart LR\n  a[输入] --> b[输出]\n```\n\n| a | $|x|$ |\n|---|---:|\n| 1 | `2` |",
        ),
        text(
            "c05-chinese",
            "反向传播从输出层开始，逐层应用链式法则。\n\n> **Note.** 注意 $x$.\n>\n> Twice.",
        ),
        code(
            "c05-ex-a",
            "def f(): ...",
            tags=["exercise"],
            exercise=exercises.of_chapter("c05")[0].id,
        ),
        text(
            "c05-end",
            "## Where next?\n\n[lab](../labs/L02_ranks.ipynb#Two-ranks), [top](#Forward-pass), [cell](#cell-id=c05-run),\n"
            "[seed](../bigmodel_lab/rng.py), [notes](../notes.md), [start](README.md), [paper](https://arxiv.org/abs/1910.07467)",
        ),
    ]


def write(root, file, cells):
    nbformat.write(new_notebook(cells=cells), root / file)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Return the root of a small book, ready to be built, and built once."""
    root = tmp_path_factory.mktemp("book")
    lay_out(root)
    (root / "chapters/SUMMARY.md").write_text(SUMMARY, "utf-8")
    (root / "chapters/README.md").write_text(
        "# Start\n\n[five](c05_networks.ipynb) $e^x$\n", "utf-8"
    )
    (root / "notes.md").write_text("# Notes\n\n```\ncode\n```\n", "utf-8")
    write(root, "chapters/c05_networks.ipynb", networks())
    write(
        root, "chapters/c06_nested.ipynb", [text("c06-a", "# Nested\n\n[back](c05_networks.ipynb)")]
    )
    lab = "# Ranks\n\n## Two ranks\n\n[chapter](../chapters/c05_networks.ipynb#Where-next?)\n[seed](../bigmodel_lab/rng.py)"
    write(root, "labs/L02_ranks.ipynb", [text("L02-a", lab), code("L02-b", "1")])
    status, log = mdbook(root)
    assert status == 0, log
    return root, log


def copy_of(sample, tmp_path):
    """Return a copy of the small book, without what was built, for a test to spoil."""
    root = tmp_path / "copy"
    shutil.copytree(sample[0], root, symlinks=True, ignore=shutil.ignore_patterns("book"))
    return root


LOADS = {
    ("script", "src"),
    ("link", "href"),
    ("img", "src"),
    ("iframe", "src"),
    ("image", "xlink:href"),
}


class Reader(HTMLParser):
    """Collects the ids, links and loaded addresses of a page, and the text that a reader sees."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loads, self.text, self.styles = [], [], [], [], []
        self._within = ""
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        self._within = tag
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            elif name == "style":
                self.styles.append(value)
            elif (tag, name) in LOADS:
                self.loads.append(value)
            elif (tag, name) == ("a", "href") or name == "data-frames":
                self.links.append(value)

    def handle_data(self, data):
        {"style": self.styles, "script": []}.get(self._within, self.text).append(data)

    def handle_endtag(self, tag):
        self._within = ""


def pages(root):
    """Return every page of a built book but 404.html, whose addresses are meant for a web server's root."""
    found = {p: Reader(p) for p in sorted((root / "book").rglob("*.html")) if p.name != "404.html"}
    assert found
    return found


def check_links(root):
    found = pages(root)
    for path, page in found.items():
        for link in page.links + page.loads:
            parts = urlparse(link)
            if parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.exists(), f"{path.name} links {link}"
            if parts.fragment and target in found:
                assert unquote(parts.fragment) in found[target].ids, f"{path.name} links {link}"


def check_nothing_is_loaded_from_elsewhere(root):
    outside = re.compile(r"\s*(?:[a-z]+:)?//", re.I)
    for path in (root / "book").rglob("*.html"):
        page = Reader(path)
        assert not [a for a in page.loads if outside.match(a)], path
        check_style(path, " ".join(page.styles))
    for path in (root / "book").rglob("*.css"):
        check_style(path, path.read_text("utf-8"))


def check_style(path, css):
    for address in re.findall(r"url\(\s*['\"]?([^'\")]+)", css):
        assert address.startswith(("#", "data:")) or not re.match(r"(?:[a-z]+:)?//", address), (
            f"{path}: {address}"
        )
        if path.suffix == ".css" and not address.startswith(("#", "data:")):
            assert (path.parent / address).exists(), f"{path}: {address}"
    assert not re.search(r"@import", css), path


def check_pages_read_well(root):
    for path, page in pages(root).items():
        seen = " ".join(page.text)
        if "source" not in path.relative_to(root / "book").parts:
            assert "$$" not in seen, path
        assert path.stat().st_size < 300_000 + sum(
            len(svg) for svg in re.findall(r"<svg id=.*?</svg>", path.read_text("utf-8"), re.S)
        ), f"{path} is larger than 300 kB before figures"
        repeated = {i for i in page.ids if page.ids.count(i) > 1}
        assert not repeated, f"{path} has the ids {repeated} more than once"


def said_no_more_than_it_must(log):
    return not re.search(r"WARN|ERROR|panicked", log)


def test_mdbook_has_nothing_to_complain_of(sample):
    _, log = sample
    assert said_no_more_than_it_must(log), log


def test_every_link_and_anchor_is_there(sample):
    check_links(sample[0])


def test_nothing_is_loaded_from_another_host(sample):
    check_nothing_is_loaded_from_elsewhere(sample[0])


def test_pages_read_well(sample):
    check_pages_read_well(sample[0])


def test_each_notebook_has_its_page_and_its_download(sample):
    root, _ = sample
    for page, notebook in {
        "c05_networks.html": "chapters/c05_networks.ipynb",
        "c06_nested.html": "chapters/c06_nested.ipynb",
        "labs/L02_ranks.html": "labs/L02_ranks.ipynb",
    }.items():
        path = root / "book" / page
        address = re.search(
            r'<p class="download"><a href="([^"]+)" download="', path.read_text("utf-8")
        )[1]
        assert (path.parent / address).read_bytes() == (root / notebook).read_bytes()


@pytest.fixture(scope="module")
def five(sample):
    return (sample[0] / "book/c05_networks.html").read_text("utf-8")


def main_text(html):
    return html[html.index("<main>") : html.index("</main>")]


def test_formulas_are_rendered(five):
    body = main_text(five)
    assert body.count('class="katex"') >= 5
    assert "\\begin" not in body
    assert "It costs $5." in body


def test_printed_text_came_through_unchanged(five):
    assert '<pre class="stdout">a\n\n\n  &lt;b&gt; *c* {{d}}</pre>' in five
    assert "print('a', '$x$', '[a](b.md)')" in five.replace("&#x27;", "'").replace("&#39;", "'")


def test_figures_follow_the_theme_and_pictures_are_files(five):
    assert "stroke: currentColor" in five
    assert 'aria-label="Figure: time (s)"' in five
    assert re.search(r'<img src="_assets/[0-9a-f]{16}\.png" alt="a picture" loading="lazy"', five)


def test_blank_lines_in_a_table_do_not_end_it(five):
    assert re.search(
        r"<table>\s*<tr><td></td><th>loss</th></tr>\s*<tr><td>1</td><td>\*\*2\*\*</td></tr>", five
    )


def test_slider_and_its_frames(sample, five):
    address = re.search(r'data-frames="([^"]+)"', five)[1]
    script = (sample[0] / "book" / address).read_text("utf-8")
    assert script.count("<svg ") == 4
    assert five.count("time 0 (s)") >= 1
    assert "time 1 (s)" not in five  # waits in the script
    assert '<p class="without-script">Slider over rate.</p>' in five
    assert '<figcaption aria-live="polite">the loss is 0</figcaption>' in five


def test_solution_of_the_exercise_is_folded(five):
    exercise = exercises.of_chapter("c05")[0]
    fold = five[five.index("Reference solution") :]
    assert five.index("<details", five.index("Exercise c05-a")) < five.index("Reference solution")
    assert f"def {exercise.name}(" in fold[: fold.index("</details>")]


def test_exception_diagram_and_note(five):
    assert "<strong>ValueError</strong>: shape (N)\n\nbut (M)</pre>" in five
    assert re.search(
        r'<p class="diagram"><img src="_assets/[0-9a-f]{16}\.svg" alt="Diagram: flowchart LR', five
    )
    assert "blockquote-tag-note" in five


def test_linked_source_file_has_a_page(sample):
    page = (sample[0] / "book/source/bigmodel_lab/rng-py.html").read_text("utf-8")
    assert "def generator(" in page
    assert "The one way to seed" in (sample[0] / "book/source/index.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("链式法则", {"c05_networks.html#forward-pass"}),
        ("第一部分", set()),
        ("ranks", {"labs/L02_ranks.html#ranks", "labs/L02_ranks.html#two-ranks"}),
        (
            "generator",
            {"source/bigmodel_lab/rng-py.html#bigmodel_labrngpy", "source/index.html#source-files"},
        ),
    ],
)
def test_search_finds_chinese_in_the_index_that_mdbook_wrote(sample, query, wanted):
    """The index file and our search, as the page runs them; test_assets.py has the finer points."""
    (index,) = (sample[0] / "book").glob("searchindex-*.js")
    context = quickjs.Context()
    context.eval(
        "globalThis.window = globalThis; globalThis.addEventListener = () => {}; window.search = {};"
    )
    context.eval((REPO / "bigmodel_lab/book/assets/search.js").read_text("utf-8"))
    context.eval(index.read_text("utf-8"))
    found = context.eval(
        f"JSON.stringify(bookSearch(search.index).search('{query}').map(hit => search.doc_urls[hit.ref]))"
    )
    assert set(json.loads(found)) == wanted


def test_nested_chapters_lie_below_their_chapter(sample):
    toc = (sample[0] / "book/toc.html").read_text("utf-8")
    assert re.search(r'5 · Networks</a>.*?<ol class="section">.*?6 · Nested', toc, re.S)
    assert re.search(r'Source files</a>.*?<ol class="section">.*?rng\.py', toc, re.S)


def test_second_build_writes_nothing_new(sample):
    root, _ = sample
    watched = [*(root / "chapters").rglob("*"), *(root / ".cache").rglob("*")]
    before = {p: p.stat().st_mtime_ns for p in watched if p.is_file()}
    status, log = mdbook(root)
    assert status == 0
    assert said_no_more_than_it_must(log), log
    assert {p: p.stat().st_mtime_ns for p in before} == before


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (
            text("c05-bad", "so $\\frac{1}$"),
            r"c05_networks.ipynb, cell c05-bad: .*formula '\\\\frac\{1\}'",
        ),
        (
            text("c05-bad", "[a](c07_gone.ipynb)"),
            "c05_networks.ipynb, cell c05-bad: the link c07_gone.ipynb",
        ),
        (
            new_code_cell("1", id="c05-bad"),
            "c05_networks.ipynb, cell c05-bad: the cell has not been run",
        ),
        (
            code("c05-bad", "1", new_output("error", ename="KeyError", evalue="x", traceback=[])),
            "c05_networks.ipynb, cell c05-bad: the stored output is an error",
        ),
    ],
)
def test_what_must_not_be_seen_stops_the_build_and_names_its_place(sample, tmp_path, cell, message):
    root = copy_of(sample, tmp_path)
    write(root, "chapters/c05_networks.ipynb", [*networks(), cell])
    status, log = mdbook(root)
    assert status != 0
    assert re.search(f"The book was not built. chapters/{message}", log), log
    assert not (root / "book").exists()


def test_a_missing_notebook_stops_the_build_and_none_is_made_up(sample, tmp_path):
    root = copy_of(sample, tmp_path)
    (root / "chapters/c06_nested.ipynb").unlink()
    status, log = mdbook(root)
    assert status != 0
    assert "c06_nested.ipynb" in log
    assert not (root / "chapters/c06_nested.ipynb").exists()


def test_a_damaged_notebook_stops_the_build(sample, tmp_path):
    root = copy_of(sample, tmp_path)
    (root / "labs/L02_ranks.ipynb").write_text("{", "utf-8")
    status, log = mdbook(root)
    assert status != 0
    assert "labs/L02_ranks.ipynb is not a notebook" in log


def test_only_html_is_supported():
    for renderer, status in (("html", 0), ("markdown", 1)):
        command = [sys.executable, "-m", "bigmodel_lab.book.preprocessor", "supports", renderer]
        assert subprocess.run(command, cwd=REPO, timeout=60).returncode == status


# The repository's own book.


def notebooks():
    """Return the repository's notebooks as SUMMARY.md names them."""
    found = [*(REPO / "chapters").glob("*.ipynb"), *(REPO / "labs").glob("*.ipynb")]
    return {os.path.relpath(p, REPO / "chapters").replace(os.sep, "/") for p in found}


def test_summary_names_every_notebook_and_nothing_else():
    summary = (REPO / "chapters/SUMMARY.md").read_text("utf-8")
    named = re.findall(r"\]\(([^)]+)\)", summary)
    assert len(named) == len(set(named))
    assert set(named) - {"README.md"} == notebooks()


def test_the_repositorys_book(tmp_path):
    root = tmp_path / "book"
    lay_out(root)
    (REPO / ".cache").mkdir(exist_ok=True)  # formulas and diagrams that were rendered before
    for entry in (*REPO.glob("[!.]*"), REPO / ".cache"):
        if entry.name not in ("book", "book.toml", "bigmodel_lab", "chapters", "labs"):
            (root / entry.name).symlink_to(entry)  # what a notebook may link
    for folder in ("chapters", "labs"):
        hidden = shutil.ignore_patterns("_assets", ".ipynb_checkpoints")
        shutil.copytree(REPO / folder, root / folder, dirs_exist_ok=True, ignore=hidden)
    status, log = mdbook(root)
    assert status == 0, log
    assert said_no_more_than_it_must(log), log
    for notebook in notebooks():
        assert (root / "book" / notebook.removeprefix("../")).with_suffix(".html").exists()
    check_links(root)
    check_nothing_is_loaded_from_elsewhere(root)
    check_pages_read_well(root)


def test_settings_are_those_the_design_asks_for():
    import tomllib

    settings = tomllib.loads((REPO / "book.toml").read_text("utf-8"))
    assert settings["book"]["title"] == "Big-Model Lab · 大模型实验室"
    assert settings["book"]["src"] == "chapters"
    assert settings["build"]["create-missing"] is False
    assert settings["output"]["html"]["print"]["enable"] is False
    assert json.dumps(settings).count("http") == 0
