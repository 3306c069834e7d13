"""Where links lead in the book."""

import pytest

from bigmodel_lab.book.links import Assets, Site

FIVE, LAB, START = "chapters/c05_nets.ipynb", "labs/L02_ranks.ipynb", "chapters/README.md"


@pytest.fixture
def site(tmp_path):
    for file, content in {
        "bigmodel_lab/ops/linear.py": b"x = 1\n",
        "benchmarks/ops.md": b"# Measured\n",
        "chapters/figure one.svg": b"<svg/>",
        "chapters/c06_other.ipynb": b"{}",
    }.items():
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    pages = {FIVE: "c05_nets.html", LAB: "labs/L02_ranks.html", START: "index.html"}
    site = Site(tmp_path, pages, Assets(tmp_path / "chapters" / "_assets"))
    anchors = {
        "Forward-pass": "forward-pass",
        "forward-pass": "forward-pass",
        "cell-id=c05-a": "c05-a",
    }
    site.anchors = {FIVE: anchors, LAB: {"两个进程": "两个进程"}, START: {}}
    return site


@pytest.mark.parametrize(
    ("here", "url", "wanted"),
    [
        (FIVE, "../labs/L02_ranks.ipynb", "labs/L02_ranks.html"),
        (FIVE, "../labs/L02_ranks.ipynb#两个进程", "labs/L02_ranks.html#两个进程"),
        (
            FIVE,
            "../labs/L02_ranks.ipynb#%E4%B8%A4%E4%B8%AA%E8%BF%9B%E7%A8%8B",
            "labs/L02_ranks.html#两个进程",
        ),
        (LAB, "../chapters/c05_nets.ipynb#Forward-pass", "../c05_nets.html#forward-pass"),
        (LAB, "../chapters/c05_nets.ipynb#forward-pass", "../c05_nets.html#forward-pass"),
        (LAB, "../chapters/c05_nets.ipynb#cell-id=c05-a", "../c05_nets.html#c05-a"),
        (LAB, "../chapters/README.md", "../index.html"),
        (FIVE, "README.md", "index.html"),
        (FIVE, "./c05_nets.ipynb#Forward-pass", "c05_nets.html#forward-pass"),
        (FIVE, "#Forward-pass", "#forward-pass"),
        (START, "c05_nets.ipynb", "c05_nets.html"),
        (FIVE, "../bigmodel_lab/ops/linear.py", "source/bigmodel_lab/ops/linear-py.html"),
        (LAB, "../bigmodel_lab/ops/linear.py#L3", "../source/bigmodel_lab/ops/linear-py.html"),
        (FIVE, "../benchmarks/ops.md", "source/benchmarks/ops-md.html"),
        (FIVE, "https://arxiv.org/abs/1910.07467", "https://arxiv.org/abs/1910.07467"),
        (FIVE, "mailto:a@b.org", "mailto:a@b.org"),
    ],
)
def test_where_a_link_leads(site, here, url, wanted):
    assert site.href(url, here) == wanted


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("c07_gone.ipynb", "leads to chapters/c07_gone.ipynb, which is no file of the repository"),
        ("c06_other.ipynb", "a notebook that chapters/SUMMARY.md does not name"),
        ("../bigmodel_lab/ops", "a folder: link one of its files"),
        ("../../outside.txt", "no file of the repository"),
        (
            "#Forward-pas",
            "names no heading or cell of chapters/c05_nets.ipynb. Did you mean #Forward-pass?",
        ),
        (
            "../labs/L02_ranks.ipynb#nowhere-near",
            "names no heading or cell of labs/L02_ranks.ipynb",
        ),
    ],
)
def test_a_link_that_leads_nowhere_is_an_error(site, url, message):
    with pytest.raises(ValueError, match="the link") as caught:
        site.href(url, FIVE)
    assert message in str(caught.value)


def test_a_picture_is_copied_under_the_hash_of_its_content(site, tmp_path):
    address = site.href("figure%20one.svg", FIVE, picture=True)
    assert address.startswith("_assets/")
    assert (tmp_path / "chapters" / address).read_bytes() == b"<svg/>"
    assert site.href("../chapters/figure%20one.svg", LAB, picture=True) == f"../{address}"


def test_a_picture_on_another_host_is_an_error(site):
    for url in ("https://example.org/a.png", "//example.org/a.png"):
        with pytest.raises(ValueError, match="on another host"):
            site.href(url, FIVE, picture=True)
    assert site.href("data:image/png;base64,xyz", FIVE, picture=True).startswith("data:")


def test_linked_source_files_are_remembered_once(site):
    for here in (FIVE, LAB, FIVE):
        site.href("../bigmodel_lab/ops/linear.py", here)
    assert site.sources == {"bigmodel_lab/ops/linear.py": "source/bigmodel_lab/ops/linear-py.html"}


def test_assets_are_written_once_and_the_unused_removed(tmp_path):
    old = Assets(tmp_path)
    kept, gone = old.add(b"kept", ".js"), old.add(b"gone", ".js")
    named = old.add(b"{}", "labs/L02.ipynb")
    assert named == "_assets/labs/L02.ipynb"
    before = (tmp_path / kept.removeprefix("_assets/")).stat().st_mtime_ns
    new = Assets(tmp_path)
    assert new.add(b"kept", ".js") == kept
    assert new.add(b"{ }", "labs/L02.ipynb") == named  # a name that stays, with other content
    new.prune()
    assert (tmp_path / kept.removeprefix("_assets/")).stat().st_mtime_ns == before
    assert (tmp_path / "labs/L02.ipynb").read_bytes() == b"{ }"
    assert not (tmp_path / gone.removeprefix("_assets/")).exists()
