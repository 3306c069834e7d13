"""Where the course keeps files of its own, and files that are there whole or not at all."""

import os
from pathlib import Path

__all__ = ["home", "write_atomically"]


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
