"""mdBook's preprocessor: each notebook that chapters/SUMMARY.md names becomes a page.

mdBook runs `python3 -m bigmodel_lab.book.preprocessor supports html`, then the same without arguments, with [context,
book] as JSON on its standard input, and reads the book back. A message on standard error and a non-zero exit stop the
build: that is what a formula, link or output gets that a reader must not see.

mdBook takes its pages from one folder, chapters/. SUMMARY.md names a lab as ../labs/L02_ranks.ipynb, which mdBook reads;
its page is moved to labs/L02_ranks.html here.
"""

import ast
import json
import posixpath
import sys
from collections.abc import Iterator
from pathlib import Path

from bigmodel_lab.book import BookError, prose
from bigmodel_lab.book.links import Assets, Site
from bigmodel_lab.book.maths import Maths
from bigmodel_lab.book.page import Page


def chapters(items: list) -> Iterator[dict]:
    """Yield the book's chapters, nested ones too; separators, part titles and drafts are passed over."""
    for item in items:
        chapter = item.get("Chapter") if isinstance(item, dict) else None
        if chapter:
            if chapter["path"]:
                yield chapter
            yield from chapters(chapter["sub_items"])


def build(context: dict, book: dict) -> dict:
    """Return the book with Markdown in the place of notebooks, and with a page for each source file that they link."""
    root = Path(context["root"]).resolve()
    src = context["config"]["book"].get("src", "src")  # mdBook leaves defaults out
    cache = root / ".cache"
    assets = Assets(root / src / "_assets")
    maths = Maths(cache)
    site = Site(root, {}, assets)
    found = list(chapters(book["items"]))
    for chapter in found:
        file = posixpath.normpath(posixpath.join(src, chapter["source_path"]))
        # Up to the repository's root, so that ../labs/x has its page in labs/; README.md is the start page.
        page = posixpath.relpath(file, src).removeprefix("../")
        chapter["path"] = page
        site.pages[file] = _html(page)
    pages = []
    for chapter, file in zip(found, list(site.pages), strict=True):
        raw, download = chapter["content"], ""
        if file.endswith(".ipynb"):
            notebook = _notebook(raw, file)
            download = posixpath.basename(file)  # mdBook copies what lies in its own folder
            if posixpath.dirname(file) != src:
                download = site.relative(assets.add((root / file).read_bytes(), file), file)
        else:
            notebook = {"cells": [{"cell_type": "markdown", "metadata": {}, "source": raw}]}
        pages.append((chapter, Page(file, notebook, site, maths, cache), download))
    try:
        for chapter, page, download in pages:  # all pages are known by now, with their headings
            chapter["content"] = page.markdown(download)
    finally:
        maths.save()
    assets.prune()
    book["items"] += _sources(site)
    return book


def _html(page):
    folder, name = posixpath.split(page)
    stem = "index" if name == "README.md" else posixpath.splitext(name)[0]
    return posixpath.join(folder, f"{stem}.html")


def _notebook(raw, file):
    try:
        notebook = json.loads(raw)
        if not isinstance(notebook["cells"], list):
            raise TypeError
    except (ValueError, KeyError, TypeError):
        raise BookError(
            f"{file} is not a notebook: its text is not JSON with a list of cells."
        ) from None
    return notebook


def _sources(site):
    """Return the chapters that show the source files which the pages link, below one that lists them."""
    items, lines = [], []
    for i, (file, page) in enumerate(sorted(site.sources.items()), 1):
        path = site.root / file
        try:
            code = path.read_text("utf-8")
        except UnicodeDecodeError:
            raise BookError(f"{file} is linked, and is neither text nor a picture.") from None
        language = {".py": "python", ".toml": "toml", ".md": "markdown"}.get(path.suffix, "text")
        content = f"# `{file}`\n\n{prose.fenced(code.rstrip(), language)}\n"
        items.append(_chapter(file.removeprefix("bigmodel_lab/"), page, content, [1, i]))
        about = ast.get_docstring(ast.parse(code)) if path.suffix == ".py" else ""
        about = (about or "").split("\n")[0]
        lines.append(f"- [`{file}`]({posixpath.relpath(page, 'source')})\n  {about}")
    if not items:
        return []
    content = "# Source files\n\nThe files that the chapters link, as they were when this book was built.\n\n"
    index = _chapter("Source files", "source/index.html", content + "\n".join(lines) + "\n", [1])
    index["Chapter"]["sub_items"] = items
    return ["Separator", index]


def _chapter(name, page, content, number):
    path = page.removesuffix(".html") + ".md"
    # The number is not shown; its length tells mdBook's sidebar how deep the chapter lies.
    chapter = dict(name=name, content=content, number=number, sub_items=[], path=path)
    return {"Chapter": chapter | {"source_path": None, "parent_names": []}}


def main() -> None:
    """Answer mdBook."""
    if sys.argv[1:2] == ["supports"]:
        sys.exit(sys.argv[2] != "html")
    context, book = json.load(sys.stdin)
    try:
        book = build(context, book)
    except BookError as error:
        sys.exit(f"The book was not built. {error}")
    json.dump(book, sys.stdout)


if __name__ == "__main__":
    main()
