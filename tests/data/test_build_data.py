"""tools/build_data.py: selection, cleaning and comparison; the download is tested in test_fetch.py."""

import builtins
import errno
import io
import json
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from hypothesis import given
from hypothesis import strategies as st

from bigmodel_lab.data import DataError, store
from bigmodel_lab.data.catalog import CATALOG

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import build_data  # noqa: E402


def tgz(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            raw = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    return buffer.getvalue()


# --- images ---------------------------------------------------------------------------------------


def digits_wheel(change=lambda raw: raw):
    csv = Path(sklearn.datasets.__file__).parent / "data" / "digits.csv.gz"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as z:
        z.writestr("sklearn/datasets/data/digits.csv.gz", change(csv.read_bytes()))
        z.writestr("scikit_learn-1.dist-info/licenses/COPYING", "BSD\n\n----\n\nnot this part\n")
    return buffer.getvalue()


def test_the_installed_scikit_learn_gives_the_digits_that_ship():
    """Fails if a version of scikit-learn brings another digits.csv.gz."""
    content = build_data.digits(digits_wheel())
    assert store.content_sha256(content) == store.manifest()["digits.npz"]["content_sha256"]


def test_a_changed_digits_file_is_refused():
    shorter = store.encode(" ".join(["1"]) + "\n")
    with pytest.raises(DataError, match=r"digits.csv.gz has changed: expected 1797 rows"):
        build_data.digits(digits_wheel(lambda _: shorter))


@given(st.data())
def test_stratified_keeps_shares_order_and_spacing(draw):
    labels = np.array(draw.draw(st.lists(st.integers(0, 4), min_size=1, max_size=200)))
    n = draw.draw(st.integers(0, len(labels)))
    chosen = build_data.stratified(labels, n) if n else np.array([], int)
    assert len(chosen) == n == len(set(chosen))
    assert (np.diff(chosen) > 0).all()
    counts = np.bincount(labels, minlength=5)
    taken = np.bincount(labels[chosen], minlength=5)
    assert (np.abs(taken - counts * n / len(labels)) < 1).all()
    for k in range(5):  # evenly spaced: every stretch of a class has its share
        ranks = np.searchsorted(np.flatnonzero(labels == k), chosen[labels[chosen] == k])
        assert (
            np.abs(ranks + 0.5 - (np.arange(taken[k]) + 0.5) * counts[k] / max(taken[k], 1)) <= 1
        ).all()


# --- texts ----------------------------------------------------------------------------------------


def test_clean():
    assert build_data.clean("\ufeffe\u0301 \r\nx\t\ry\n\n") == "\u00e9\nx\ny"


def test_moby_dick_is_joined_in_the_order_of_the_book():
    files = {f"data/chapter_{i}.txt": f"CHAPTER {i}.\n\n\n\nWords." for i in range(135, 0, -1)}
    text = build_data.moby_dick(tgz(files | {"data/epilogue.txt": "Epilogue\r\n"}))
    assert text.startswith("CHAPTER 1.\n\nWords.\n\n\nCHAPTER 2.\n\nWords.\n\n\nCHAPTER 3.")
    assert text.endswith("CHAPTER 135.\n\nWords.\n\n\nEpilogue\n")


def poem(title, author, *couplets):
    return {"title": title, "author": author, "paragraphs": list(couplets)}


FAMOUS = poem("登鸛雀樓", "王之渙", "白日依山盡，黃河入海流。", "欲窮千里目，更上一層樓。")
SAME_UNDER_ANOTHER_NAME = poem("登樓", "朱斌", *FAMOUS["paragraphs"])
LONG = poem("登幽州臺歌", "陳子昂", "前不見古人，後不見來者。", "念天地之悠悠，獨愴然而涕下。")
RESTORED = poem(
    "馬嵬坡", "鄭畋", "[玄]宗回馬楊妃死，雲雨雖亡日月新。", "終是聖明天子事，景陽宮井又何人。"
)


def poems_text(anthology, three_hundred, *volumes):
    files = {
        "dist/mengxue/tangshisanbaishou.json": {"content": [{"type": "?", "content": anthology}]},
        "dist/quantangshi/唐诗三百首.json": three_hundred,
    }
    files |= {
        f"dist/quantangshi/poet.tang.{1000 * i}.json": v
        for i, v in reversed(list(enumerate(volumes)))
    }
    text = build_data.tang_poems(
        tgz({name: json.dumps(content) for name, content in files.items()})
    )
    return [document.split("\n") for document in text.rstrip("\n").split("\n\n")]


def titles(poems):
    return [p[0] for p in poems]


def test_poems_come_in_the_anthologys_order_with_its_author(capsys):
    got = poems_text([FAMOUS], [LONG, SAME_UNDER_ANOTHER_NAME, FAMOUS])
    assert titles(got) == ["登鸛雀樓", "登幽州臺歌"]
    assert "1" in capsys.readouterr().out


def test_an_editors_brackets_go_and_the_character_stays(capsys):
    assert poems_text([], [RESTORED])[0][2] == "玄宗回馬楊妃死，雲雨雖亡日月新。"


def test_volumes_follow_in_the_order_of_their_numbers(capsys):
    others = [
        poem(f"題{c}", "某", f"{c}一二三四，{c}五六七八。", f"{c}九十百千，{c}天地人和。")
        for c in "甲乙丙丁"
    ]
    assert titles(poems_text([], [], *[[p] for p in others])) == ["題甲", "題乙", "題丙", "題丁"]


@pytest.mark.parametrize(
    "bad",
    [
        LONG,
        poem("題", "某", "白日依山□，黃河入海流。", "欲窮千里目，更上一層樓。"),
        poem("題", "某", "白日依山盡，黃河入海流。", "欲窮千里目，更上一層\ue817。"),
        poem("題□", "某", "白日依山盡，黃河入海流。", "欲窮千里目，更上一層樓。"),
        poem("題", "某", "白日依山盡，黃河入海流。"),
        poem("題", "某", "白日依山盡，黃河入海流。", "欲窮千里目更，上一層樓。"),
        poem("題", "某", "白日依山盡。", "黃河入海流。", "欲窮千里目，更上一層樓。"),
        poem("題", "某"),
    ],
)
def test_only_clean_regular_quatrains_are_taken_from_the_volumes(bad, capsys):
    assert titles(poems_text([], [], [bad, RESTORED])) == ["馬嵬坡"]


def test_half_of_the_lines_shared_is_too_much_one_is_not(capsys):
    one = poem("一", "某", "白日依山盡，青天入海流。", "欲窮萬里目，須上一層樓。")
    two = poem("二", "某", "白日依山盡，黃河入海流。", "欲窮萬里路，須上一重樓。")
    assert titles(poems_text([], [], [FAMOUS, one, two])) == ["登鸛雀樓", "一"]


# --- tables ---------------------------------------------------------------------------------------


def lifetimes_wheel(*lines):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as z:
        z.writestr("lifetimes/datasets/CDNOW_sample.txt", "".join(f"{line}\n" for line in lines))
        z.writestr("Lifetimes-1.dist-info/LICENSE.txt", "Copyright C. D.-P.\n")
    return buffer.getvalue()


def test_purchases_are_summed_by_day_and_counted_by_customer():
    wheel = lifetimes_wheel(
        " 00021 0002 19970301  1   10.00",  # once only
        " 00004 0001 19970101  2   29.33",
        " 00004 0001 19970930  1   10.10",  # the last day observed, twice
        " 00004 0001 19970930  1    0.21",
        " 00004 0001 19970118  2   29.73",
        " 00004 0001 19971001  1   14.96",  # afterwards
    )
    got = {name: x.tolist() for name, x in build_data.cdnow(wheel).items()}
    assert got == {
        "repeats": [2, 0],
        "recency_days": [272, 0],
        "age_days": [272, 213],
        "mean_spend_USD": [20.02, 0.0],
        "later_repeats": [1, 0],
    }
    assert list(got) == [name for name, _ in CATALOG["cdnow"].columns]


# --- comparing and writing ------------------------------------------------------------------------


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A package folder in which what a small build writes is shipped; returns the build."""
    contents = {"digits": {"x": np.zeros(9, np.uint8)}, "moby-dick": "Call me Ishmael.\n"}
    builders = {n: (CATALOG[n].source, lambda _, c=c: c) for n, c in contents.items()}
    archives = {
        CATALOG["digits"].source: digits_wheel(),
        CATALOG["tang-poems"].source: tgz({"LICENSE": "MIT"}),
    }
    archives |= {CATALOG["moby-dick"].source: b"", CATALOG["cdnow"].source: lifetimes_wheel()}
    monkeypatch.setattr(build_data, "BUILDERS", builders)
    monkeypatch.setattr(build_data, "ASSETS", tmp_path / "assets")
    monkeypatch.setattr(build_data, "NOTICE", tmp_path / "NOTICE")
    monkeypatch.setattr(build_data, "get", lambda source, _: archives[source])
    archives_of_notice = build_data.notice
    monkeypatch.setattr(build_data, "notice", lambda _: archives_of_notice(archives))
    assert build_data.main([]) == 0
    return tmp_path


def files(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def test_a_second_build_gives_the_same_bytes_and_check_agrees(shipped, capsys):
    first = files(shipped)
    assert set(first) == {
        "NOTICE",
        "assets/digits.npz",
        "assets/moby-dick.txt.gz",
        "assets/manifest.json",
    }
    assert build_data.main(["--check"]) == 0
    assert "byte for byte" in capsys.readouterr().out
    assert build_data.main([]) == 0
    assert files(shipped) == first
    assert b"not this part" not in first["NOTICE"]
    assert b"Copyright C. D.-P." in first["NOTICE"]


@pytest.mark.parametrize(
    ("file", "raw", "message"),
    [
        (
            "assets/moby-dick.txt.gz",
            store.encode("Call me Ahab.\n"),
            "differs from the rebuild in content",
        ),
        ("assets/moby-dick.txt.gz", None, "is missing"),
        ("assets/manifest.json", b"{}", "although the files do not"),
        ("NOTICE", b"", "NOTICE differs"),
    ],
)
def test_check_finds_a_difference_and_writes_nothing(shipped, capsys, file, raw, message):
    (shipped / file).unlink()
    if raw is not None:
        (shipped / file).write_bytes(raw)
    before = files(shipped)
    assert build_data.main(["--check"]) == 1
    assert message in capsys.readouterr().out
    assert files(shipped) == before


def test_check_tells_another_packing_from_other_content(shipped, capsys):
    import gzip

    (shipped / "assets/moby-dick.txt.gz").write_bytes(gzip.compress(b"Call me Ishmael.\n", 1))
    assert build_data.main(["--check"]) == 1
    assert "in bytes but not in content" in capsys.readouterr().out


def test_a_full_disk_changes_nothing_and_says_how_much_is_needed(shipped, monkeypatch, capsys):
    before = files(shipped)

    def fill_up(path, mode):
        if path.name != "moby-dick.txt.gz":
            return builtins.open(path, mode)
        builtins.open(path, mode).close()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "open", fill_up, raising=False)
    assert build_data.main([]) == 1
    assert "No space left in" in capsys.readouterr().err
    assert files(shipped) == before


def test_get_takes_an_archive_from_the_folder_only_if_its_hash_is_right(tmp_path, monkeypatch):
    import dataclasses

    good = b"the archive"
    source = dataclasses.replace(
        CATALOG["mnist"].source, sha256=store.sha256(good), archive_bytes=len(good)
    )
    monkeypatch.setattr(build_data, "download", lambda _: b"downloaded")
    (tmp_path / "a.tgz").write_bytes(b"the archivE")
    assert build_data.get(source, tmp_path) == b"downloaded"
    (tmp_path / "b.tgz").write_bytes(good)
    assert build_data.get(source, tmp_path) == good
    assert build_data.get(source, None) == b"downloaded"
