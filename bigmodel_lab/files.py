"""Where the course keeps files of its own, and files that are there whole or not at all."""

import os
import tempfile
from pathlib import Path

__all__ = ["home", "require_writable", "write_atomically"]


def home() -> Path:
    """The folder of what the course keeps or fetches for its reader: $BIGMODEL_LAB_HOME, or ~/.bigmodel-lab.

    It may not exist yet.
    """
    return Path(os.environ.get("BIGMODEL_LAB_HOME") or "~/.bigmodel-lab").expanduser()


def write_atomically(path: str | os.PathLike, content: bytes) -> Path:
    """Write `content` to `path` and return the path; the folder must exist.

    Whoever reads the file sees the old content or the new one, never a part, also if this process is killed or the
    disk fills up half way: the new content is written beside the file, forced to disk, and then renamed over it.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def require_writable(name: str, path: str | os.PathLike, *, folder: bool = False) -> None:
    """Check that `path` can be written, by writing beside it: now, and not when hours of work are to be saved.

    name : the argument's name, for the message
    folder : `path` is a folder, to be made if missing; else its folder must exist

    Raises ValueError.
    """
    path = Path(path)
    within = path if folder else path.absolute().parent
    try:
        if folder:
            path.mkdir(parents=True, exist_ok=True)
        if not within.is_dir():
            why = "its folder does not exist"
        elif path.is_dir() and not folder:
            why = "it is a folder"
        else:
            tempfile.TemporaryFile(dir=within).close()
            return
    except OSError as error:
        why = f"it cannot be written ({error.strerror})"
    raise ValueError(f"{name} {path}: {why}. Mend that, or choose another place.")
