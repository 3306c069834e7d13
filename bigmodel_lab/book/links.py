"""Where a file of the repository lands in the book, and what a link to it becomes.

Authors write links for JupyterLab, relative to the notebook: `../labs/L02_ranks.ipynb#Count-the-bytes`. In the book the
same link must reach `labs/L02_ranks.html#count-the-bytes`. Every link is resolved to a file of the repository first; one
that leads nowhere is an error, so a page never has a broken link.

- a notebook or text named in SUMMARY.md: its page, and the heading or cell (`#cell-id=c05-forward`) after the `#`;
- a picture: copied, named by its content;
- any other text file, such as `../bigmodel_lab/ops/linear.py`: a page that shows the file, under source/.
"""

import hashlib
import posixpath
import re
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import unquote

PICTURES = {".svg", ".png", ".jpg", ".jpeg", ".gif", ".webp"}
ELSEWHERE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|//")


class Assets:
    """Files that mdBook copies beside the pages: written under chapters/_assets, named by their content.

    mdBook empties its output folder after the preprocessor ran, so nothing can be written there directly.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._used = set()

    def add(self, data: bytes, name: str) -> str:
        """Store `data` and return its path in the book; a `name` of ".svg" gets the content's hash as its stem."""
        if name.startswith("."):
            name = hashlib.sha256(data).hexdigest()[:16] + name
        path = self.folder / name
        if not path.exists() or path.read_bytes() != data:  # a rebuild writes nothing
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self._used.add(path)
        return f"_assets/{name}"

    def prune(self) -> None:
        """Remove what this build did not use."""
        for path in self.folder.rglob("*"):
            if path.is_file() and path not in self._used:
                path.unlink()


class Site:
    """The files of the repository that have a page, and the places in those pages that a link can name."""

    def __init__(self, root: Path, pages: dict[str, str], assets: Assets):
        self.root = root.resolve()
        self.pages = pages  # "labs/L02_ranks.ipynb" -> "labs/L02_ranks.html"
        self.assets = assets
        self.anchors: dict[
            str, dict[str, str]
        ] = {}  # page's file -> {what follows the #: id in the page}
        self.sources: dict[str, str] = {}  # text files that were linked -> their page

    def href(self, url: str, here: str, *, picture: bool = False) -> str:
        """Return what `url`, written in the file `here`, is in that file's page.

        Raises ValueError if it leads nowhere, or if it is a picture on another host.
        """
        if ELSEWHERE.match(url):
            if picture and not url.startswith("data:"):
                raise ValueError(
                    f"the picture {url} is on another host: put it into the repository."
                )
            return url
        path, _, fragment = unquote(url).partition("#")
        file = posixpath.normpath(posixpath.join(posixpath.dirname(here), path)) if path else here
        if file in self.pages:
            target = self.pages[file]
            fragment = self._anchor(file, fragment, url) if fragment else ""
        else:
            target, fragment = self._other(file, url), ""
        return (self.relative(target, here) if path else "") + (f"#{fragment}" if fragment else "")

    def relative(self, target: str, here: str) -> str:
        """Return the address of the book's file `target` as seen from the page of `here`."""
        return posixpath.relpath(target, posixpath.dirname(self.pages[here]) or ".")

    def _anchor(self, file, fragment, url):
        anchors = self.anchors[file]
        if fragment not in anchors:
            near = get_close_matches(fragment, anchors, n=1, cutoff=0.4)
            hint = f" Did you mean #{near[0]}?" if near else ""
            raise ValueError(f"the link {url} names no heading or cell of {file}.{hint}")
        return anchors[fragment]

    def _other(self, file, url):
        path = self.root / file
        if file.startswith("../") or not path.is_file():
            what = (
                "a folder: link one of its files" if path.is_dir() else "no file of the repository"
            )
            raise ValueError(f"the link {url} leads to {file}, which is {what}.")
        if file.endswith(".ipynb"):
            raise ValueError(
                f"the link {url} leads to a notebook that chapters/SUMMARY.md does not name."
            )
        if path.suffix in PICTURES:
            return self.assets.add(path.read_bytes(), path.suffix)
        # "linear-py.html": mdBook would take the .md out of "ops.md.html" in a link.
        return self.sources.setdefault(file, f"source/{file.replace('.', '-')}.html")
