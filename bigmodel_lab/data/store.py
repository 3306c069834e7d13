"""Files that hold data: read with their hash checked, written so that the same content gives the same bytes.

`assets/manifest.json` gives for each shipped file its size, the SHA-256 of its bytes and the SHA-256 of what it decodes
to. The second hash stays the same when another version of zlib packs the same content into other bytes.
"""

import errno
import gzip
import hashlib
import io
import json
import os
import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np

ASSETS = Path(__file__).parent / "assets"
MANIFEST = "manifest.json"


class DataError(RuntimeError):
    """A data file is missing or damaged, cannot be fetched, or there is no room for it; the message says the mend."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def require_hash(path: Path, raw: bytes, expected: str, size: int, mend: str) -> None:
    """Raise DataError, saying expected and found and the `mend`, unless `raw`, read from `path`, is what it should be."""
    if len(raw) != size:
        raise DataError(f"{path} is damaged: expected {size:,} bytes, found {len(raw):,}. {mend}")
    if (found := sha256(raw)) != expected:
        raise DataError(
            f"{path} is damaged: expected SHA-256 {expected[:16]}..., found {found[:16]}.... {mend}"
        )


def read_asset(file: str) -> dict[str, np.ndarray] | str:
    """Read and check the shipped `file`: the arrays of an .npz by name, or the text of a .txt.gz.

    Raises DataError if it is missing, not in the manifest, or differs from it in size, bytes or
    content.
    """
    path, listed = ASSETS / file, manifest().get(file)
    if listed is None:
        raise DataError(f"{ASSETS / MANIFEST} does not list {file}. {_mend()}")
    raw = _read(path)
    require_hash(path, raw, listed["sha256"], listed["bytes"], _mend())
    content = decode(file, raw)
    if (found := content_sha256(content)) != listed["content_sha256"]:
        raise DataError(
            f"{path} is intact but decodes to other content than when it was made: expected "
            f"SHA-256 {listed['content_sha256'][:16]}..., found {found[:16]}.... {_mend()}"
        )
    return content


def manifest() -> dict[str, dict]:
    """What ships: file name -> {"bytes", "sha256", "content_sha256"}."""
    path, keys = ASSETS / MANIFEST, ("bytes", "sha256", "content_sha256")
    try:
        listed = json.loads(_read(path))
        return {file: {key: entry[key] for key in keys} for file, entry in listed.items()}
    except (ValueError, LookupError, TypeError, AttributeError) as e:
        raise DataError(f"{path} is damaged: {type(e).__name__}: {e}. {_mend()}") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:  # missing, or not readable
        raise DataError(f"{path} cannot be read: {e.strerror}. {_mend()}") from None


def _mend() -> str:
    """How to restore all of assets/: it may be the manifest that is wrong."""
    clone = ASSETS.parents[2]
    if (clone / ".git").exists():
        return f"Restore it: `git -C {clone} checkout -- {ASSETS.relative_to(clone)}`."
    return "Reinstall the package: `pip install --force-reinstall --no-deps bigmodel-lab`."


# --- content <-> bytes ----------------------------------------------------------------------------------------------


def decode(file: str, raw: bytes) -> dict[str, np.ndarray] | str:
    """Arrays by name from the bytes of an .npz, text from those of a .txt.gz."""
    if file.endswith(".npz"):
        with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
            return dict(arrays)
    return gzip.decompress(raw).decode("utf-8")


def encode(content: dict[str, np.ndarray] | str) -> bytes:
    """The inverse of `decode`. Nothing in the bytes depends on the time, the order of the names or the platform."""
    buffer = io.BytesIO()
    if isinstance(content, str):
        with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=9, mtime=0) as f:
            f.write(content.encode("utf-8"))
        return buffer.getvalue()
    with zipfile.ZipFile(buffer, "w") as z:
        for name in sorted(content):
            info = zipfile.ZipInfo(
                f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0)
            )  # np.savez writes the present time
            info.compress_type, info.create_system, info.external_attr = (
                zipfile.ZIP_DEFLATED,
                3,
                0o644 << 16,
            )
            npy = io.BytesIO()
            np.lib.format.write_array(
                npy, np.ascontiguousarray(content[name]), version=(1, 0), allow_pickle=False
            )
            z.writestr(info, npy.getvalue(), compresslevel=9)
    return buffer.getvalue()


def content_sha256(content: dict[str, np.ndarray] | str) -> str:
    """Hash of the text in UTF-8, or of every array's name, dtype, shape and elements in the order of the names."""
    if isinstance(content, str):
        return sha256(content.encode("utf-8"))
    digest = hashlib.sha256()
    for name in sorted(content):
        array = np.ascontiguousarray(content[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


# --- writing --------------------------------------------------------------------------------------------------------


def require_room(folder: Path, need: int) -> None:
    """Raise DataError if the disk that holds `folder` has fewer than `need` bytes free."""
    if (free := shutil.disk_usage(folder).free) < need:
        raise no_room(folder, need, free)


def no_room(folder: Path, need: int, free: int | None = None) -> DataError:
    """The error for a full disk: how much is needed, how much there is."""
    free = shutil.disk_usage(folder).free if free is None else free
    return DataError(
        f"No space left in {folder}: this needs {need / 1e6:,.1f} MB and {free / 1e6:,.1f} MB are "
        "free. Nothing was changed there: make room and try again."
    )


def write_together(folder: Path, files: dict[str, bytes]) -> None:
    """Write `files` (name -> bytes) into `folder`: all of them, or on any error none of them.

    Each goes to a temporary name first, and only when all are on the disk do they get their own. Raises DataError if
    there is no room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
    try:
        for name, data in files.items():
            with open(staging / name, "wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
        for name in files:
            os.replace(staging / name, folder / name)
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        shutil.rmtree(staging, ignore_errors=True)  # before we look how much is free
        raise no_room(folder, sum(map(len, files.values()))) from e
    finally:
        shutil.rmtree(staging, ignore_errors=True)
