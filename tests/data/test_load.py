"""What ships: the arrays and texts themselves, their checks, and the errors for names and damaged files."""

import json
import shutil
import socket
import subprocess
import sys
import unicodedata
from collections import Counter

import numpy as np
import pytest
from sklearn.datasets import load_digits

from bigmodel_lab import data
from bigmodel_lab.data import store
from bigmodel_lab.data.catalog import CATALOG

IMAGES = {"digits": (1415, 382, 8, 16), "mnist": (8000, 2000, 28, 255)}  # train, test, side, white
TEXTS = ["moby-dick", "tang-poems"]


@pytest.fixture
def assets(tmp_path, monkeypatch):
    """A copy of assets/ that a test may damage; nothing that was loaded before is remembered."""
    copy = tmp_path / "a" / "b" / "assets"
    shutil.copytree(store.ASSETS, copy)
    monkeypatch.setattr(store, "ASSETS", copy)
    data.load.cache_clear()
    yield copy
    data.load.cache_clear()


# --- images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IMAGES)
def test_images_have_the_stated_shapes_types_and_ranges(name):
    n_train, n_test, side, white = IMAGES[name]
    d = data.load(name)
    for x, y, n in ((d.x_train, d.y_train, n_train), (d.x_test, d.y_test, n_test)):
        assert x.shape == (n, side, side)
        assert x.dtype == np.uint8
        assert (x.min(), x.max()) == (0, white)
        assert y.shape == (n,)
        assert y.dtype == np.int64
        assert set(y) == set(range(10))
    assert d.white == white
    assert d.classes == 10
    assert f"{n_train:,} training and {n_test:,} test images of {side}x{side}" in repr(d)


@pytest.mark.parametrize("name", IMAGES)
def test_no_image_is_in_both_train_and_test(name):
    d = data.load(name)
    train, test = ({x.tobytes() for x in images} for images in (d.x_train, d.x_test))
    assert not train & test


def test_digits_are_scikit_learns_in_its_order():
    d, theirs = data.load("digits"), load_digits()
    assert np.array_equal(np.concatenate([d.x_train, d.x_test]), theirs.images)
    assert np.array_equal(np.concatenate([d.y_train, d.y_test]), theirs.target)


def test_digits_are_split_between_two_sheets():
    d = data.load("digits")
    beginning = list(range(10)) * 3 + [0, 9, 5, 5, 6, 5, 0]  # every sheet begins with these
    assert d.y_test[:37].tolist() == beginning
    assert d.y_train[:37].tolist() == beginning
    y = np.concatenate([d.y_train, d.y_test])
    assert all(np.bincount(part).min() > 0.09 * len(part) for part in (d.y_train, d.y_test, y))


def test_mnist_keeps_the_share_of_each_class():
    d = data.load("mnist")
    full_train = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]  # of 60,000
    full_test = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]  # of 10,000
    assert np.abs(np.bincount(d.y_train) - np.array(full_train) * 8000 / 60000).max() < 1
    assert np.abs(np.bincount(d.y_test) - np.array(full_test) * 2000 / 10000).max() < 1


@pytest.mark.parametrize("name", IMAGES)
def test_images_are_upright_and_labelled(name):
    """The mean image of a class is nearest to the class's own images; a 1 is tall, not wide."""
    d = data.load(name)
    x, y = d.pixels("train")
    means = np.stack([x[y == k].mean(0) for k in range(10)])
    test, labels = d.pixels("test")
    nearest = ((test[:, None, :] - means) ** 2).sum(-1).argmin(1)
    assert (nearest == labels).mean() > 0.75
    one = means[1].reshape(d.x_train.shape[1:])
    assert (one.max(0) > 0.3).sum() < (one.max(1) > 0.3).sum()


@pytest.mark.parametrize("name", IMAGES)
def test_pixels_are_rows_between_0_and_1(name):
    d = data.load(name)
    x, y = d.pixels("test")
    assert x.dtype == np.float32
    assert x.shape == (len(d.x_test), d.x_test[0].size)
    assert (x.min(), x.max()) == (0, 1)
    assert np.array_equal(np.round(x * d.white).astype(np.uint8), d.x_test.reshape(len(x), -1))
    assert np.array_equal(y, d.y_test)


def test_pixels_refuses_another_split():
    with pytest.raises(ValueError, match=r"split must be one of 'test', 'train', got 'tset'. Did"):
        data.load("digits").pixels("tset")


# --- nobody can change what others see ------------------------------------------------------------


@pytest.mark.parametrize("key", ["x_train", "y_train", "x_test", "y_test"])
def test_arrays_are_read_only(key):
    array = getattr(data.load("digits"), key)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True


def test_pixels_are_copies_to_write_in():
    d = data.load("digits")
    before = d.x_train.copy(), d.y_train.copy()
    x, y = d.pixels("train")
    x[:], y[:] = 7, 7
    assert np.array_equal(d.x_train, before[0])
    assert np.array_equal(d.y_train, before[1])
    assert d.pixels("train")[0].max() == 1


def test_a_data_set_is_frozen_and_loaded_once():
    d = data.load("digits")
    with pytest.raises(AttributeError, match="cannot assign"):
        d.x_train = None
    assert data.load("digits") is d
    with pytest.raises(AttributeError, match="'Images' object has no attribute 'text'"):
        _ = d.text


def test_loading_needs_no_network_and_no_program(monkeypatch, assets):
    def refuse(*_, **__):
        raise AssertionError("a shipped data set was looked for elsewhere")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    for name in data.names():
        data.load(name)


# --- texts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEXTS)
def test_text_hygiene(name):
    text = data.load(name).text
    assert unicodedata.is_normalized("NFC", text)
    assert not set(text) & set("\r\t\ufeff\u3000\xa0")
    assert not {unicodedata.category(c) for c in set(text) - {"\n"}} & {
        "Cc",
        "Cf",
        "Co",
        "Cn",
        "Cs",
    }
    assert text == "\n".join(line.rstrip() for line in text.split("\n"))
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


@pytest.mark.parametrize("name", TEXTS)
def test_the_description_counts_what_is_there(name):
    d = data.load(name)
    counts = (
        f"{len(d.documents):,} documents, {len(d.text):,} characters, {len(set(d.text)):,} distinct"
    )
    assert counts in repr(d)


@pytest.mark.parametrize("name", TEXTS)
def test_documents_make_up_the_text_and_are_distinct(name):
    d = data.load(name)
    assert d.separator.join(d.documents) + "\n" == d.text
    assert all(document == document.strip() != "" for document in d.documents)
    assert len(set(d.documents)) == len(d.documents)


def test_moby_dick_is_whole():
    d = data.load("moby-dick")
    assert d.text.startswith("CHAPTER 1. Loomings.\n\nCall me Ishmael.")
    numbers = [document.split(".")[0] for document in d.documents]
    assert numbers[:-1] == [f"CHAPTER {i}" for i in range(1, 136)]
    assert d.documents[-1].startswith("Epilogue")
    assert d.text.endswith("only found another orphan.\n")
    assert {c for c in d.text if ord(c) > 126} == {"\u2014"}


def test_tang_poems_begin_with_the_famous_ones():
    d = data.load("tang-poems")
    assert d.documents[1] == "登鸛雀樓\n王之渙\n白日依山盡，黃河入海流。\n欲窮千里目，更上一層樓。"
    assert "靜夜思\n李白" in "\n".join(d.documents[:320])
    assert any(document.startswith("長恨歌\n白居易") for document in d.documents[:320])


def test_tang_poems_are_chinese_and_mostly_regular():
    poems = [document.split("\n") for document in data.load("tang-poems").documents]
    used = Counter("".join("".join(poem) for poem in poems))
    assert not set(used) - set(" ，。？！；") - set(filter(_is_han, used))
    regular = [len(p) == 4 and {len(line) for line in p[2:]} <= {12, 16} for p in poems]
    assert all(regular[330:])
    assert len(regular) - sum(regular) > 150  # the Three Hundred have every form


def test_no_poem_shares_half_of_its_lines_with_another():
    poems = []
    for document in data.load("tang-poems").documents:
        verse = "".join(document.split("\n")[2:])
        poems.append(
            {
                line
                for line in verse.translate(dict.fromkeys(map(ord, "。？！；"), "，")).split("，")
                if line
            }
        )
    having = {}
    for i, lines in enumerate(poems):
        shared = Counter(j for line in lines for j in having.get(line, ()))
        assert max(shared.values(), default=0) < len(lines) / 2, i
        for line in lines:
            having.setdefault(line, []).append(i)


def test_traditional_script():
    used = set(data.load("tang-poems").text)
    assert set("國馬時長門風") <= used
    assert not used & set("国马时长门风")


def _is_han(c):
    return unicodedata.name(c, "").startswith("CJK UNIFIED IDEOGRAPH")


# --- tables ---------------------------------------------------------------------------------------


def test_cdnow_is_the_published_sample():
    """Fader, Hardie and Lee (2005), section 4: 2,357 customers, 1,411 of them without a repeat; 1,882 later repeats."""
    d = data.load("cdnow")
    x = d.columns
    assert len(d) == 2357
    assert list(x) == ["repeats", "recency_days", "age_days", "mean_spend_USD", "later_repeats"]
    assert [a.dtype for a in x.values()] == [np.int64] * 3 + [np.float64, np.int64]
    assert {a.shape for a in x.values()} == {(2357,)}
    assert (x["repeats"] == 0).sum() == 1411
    assert x["later_repeats"].sum() == 1882
    none = x["repeats"] == 0
    assert np.array_equal(none, x["recency_days"] == 0)
    assert np.array_equal(none, x["mean_spend_USD"] == 0)
    assert (x["recency_days"] <= x["age_days"]).all()
    assert "repeats, int64, 0 to 29: days on which the customer bought again" in repr(d)


def test_a_table_cannot_be_written_to():
    d = data.load("cdnow")
    with pytest.raises(ValueError, match="read-only"):
        d.columns["repeats"][0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        d.columns["repeats"].flags.writeable = True
    with pytest.raises(TypeError, match="does not support item assignment"):
        d.columns["repeats"] = None


# --- names ----------------------------------------------------------------------------------------


def test_an_unknown_name_lists_the_names_and_offers_the_nearest():
    with pytest.raises(
        ValueError, match=r"'cdnow', 'digits', 'mnist', 'moby-dick', 'tang-poems', got 'minst'"
    ) as e:
        data.load("minst")
    assert "Did you mean 'mnist'?" in str(e.value)


def test_a_set_that_does_not_ship_names_the_way_to_get_it():
    with pytest.raises(
        ValueError, match=r"does not ship .* bigmodel_lab.data.fetch\('mnist-full'\)"
    ):
        data.load("mnist-full")


# --- damaged files --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", data.names())
def test_a_truncated_file_is_named_with_both_sizes(assets, name):
    path = assets / CATALOG[name].file
    raw = path.read_bytes()
    path.write_bytes(raw[:-7])
    expected = f"{path} is damaged: expected {len(raw):,} bytes, found {len(raw) - 7:,}. Reinstall"
    with pytest.raises(data.DataError) as e:
        data.load(name)
    assert str(e.value).startswith(expected)
    path.write_bytes(raw)  # once it is mended, loading works in the same process
    assert data.load(name).name == name


@pytest.mark.parametrize("name", data.names())
def test_a_flipped_bit_is_found(assets, name):
    path = assets / CATALOG[name].file
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    expected = store.manifest()[path.name]["sha256"][:16]
    with pytest.raises(
        data.DataError, match=f"{path.name} is damaged: expected SHA-256 {expected}"
    ):
        data.load(name)
    (problem,) = data.verify()
    assert problem.startswith(f"{name}: {path} is damaged")


def test_a_missing_file_is_named(assets):
    (assets / "mnist.npz").unlink()
    with pytest.raises(
        data.DataError, match=r"mnist.npz cannot be read: No such file .* Reinstall"
    ):
        data.load("mnist")
    assert data.load("digits").name == "digits"  # the others are not concerned


def test_in_a_clone_the_mend_is_git_checkout(assets):
    (assets.parents[2] / ".git").mkdir()
    (assets / "mnist.npz").unlink()
    with pytest.raises(data.DataError) as e:
        data.load("mnist")
    assert f"`git -C {assets.parents[2]} checkout -- a/b/assets`" in str(e.value)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"mnist.npz": {"bytes": 1}}', "\udcff"])
def test_a_damaged_manifest_is_named(assets, content):
    (assets / "manifest.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(data.DataError, match=r"manifest\.json is damaged"):
        data.load("mnist")
    assert len(data.verify()) == len(data.names())


def test_a_file_that_the_manifest_does_not_list_is_refused(assets):
    path = assets / "manifest.json"
    listed = json.loads(path.read_text())
    del listed["mnist.npz"]
    path.write_text(json.dumps(listed))
    with pytest.raises(data.DataError, match=r"manifest.json does not list mnist.npz"):
        data.load("mnist")


def test_other_content_in_a_file_with_the_right_hash_is_found(assets):
    path = assets / "moby-dick.txt.gz"
    raw = store.encode("Call me Ahab.\n")
    path.write_bytes(raw)
    listed = json.loads((assets / "manifest.json").read_text())
    listed[path.name] |= {"bytes": len(raw), "sha256": store.sha256(raw)}
    (assets / "manifest.json").write_text(json.dumps(listed))
    with pytest.raises(data.DataError, match="decodes to other content"):
        data.load("moby-dick")


def test_what_ships_is_intact_and_small():
    assert data.verify() == []
    assert sum(path.stat().st_size for path in store.ASSETS.iterdir()) < 4_000_000
    shipped = {entry.file for entry in CATALOG.values() if entry.file}
    assert {path.name for path in store.ASSETS.iterdir()} == shipped | {store.MANIFEST}


# --- terms, and the table -------------------------------------------------------------------------


@pytest.mark.parametrize("name", CATALOG)
def test_notice_has_the_terms_of_every_set(name):
    entry = CATALOG[name]
    notice = " ".join((store.ASSETS.parent / "NOTICE").read_text("utf-8").split())
    for part in (
        entry.title,
        entry.selection,
        entry.terms,
        entry.citation,
        str(entry.source),
        entry.source.sha256,
    ):
        assert " ".join(part.split()) in notice
    assert entry.licence


def test_notice_keeps_the_licences_that_ask_for_it():
    notice = (store.ASSETS.parent / "NOTICE").read_text("utf-8")
    for line in (
        "The scikit-learn developers.",
        "Copyright (c) 2016 JackeyGao",
        "The MIT License (MIT)",
        "Copyright (c) 2015, Cameron Davidson-Pilon",
    ):
        assert line in notice


def test_the_table_names_every_set(capsys):
    from bigmodel_lab.data.__main__ import main

    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(CATALOG)
    assert main(["digits"]) == 0
    assert capsys.readouterr().out == f"{data.load('digits')}\n"


def test_the_command_says_what_is_damaged(assets, capsys):
    from bigmodel_lab.data.__main__ import main

    (assets / "digits.npz").write_bytes(b"")
    size = store.manifest()["digits.npz"]["bytes"]
    assert main([]) == 1
    assert f"digits.npz is damaged: expected {size:,} bytes, found 0" in capsys.readouterr().err


def test_the_command_runs():
    done = subprocess.run(
        [sys.executable, "-m", "bigmodel_lab.data"], capture_output=True, text=True, check=True
    )
    assert "tang-poems" in done.stdout
    assert done.stderr == ""
