"""What a measurement was taken on: the machine and the versions, and nothing that says whose machine it is."""

import os
import platform
from importlib import metadata
from pathlib import Path

import psutil

import bigmodel_lab

__all__ = ["machine", "versions"]


def machine() -> dict[str, str | int]:
    """Describe the machine by what matters for speed: CPU, cores that this process may use, memory, system.

    No host name, user name, address or path. Keys: cpu, cores, memory_bytes, system.
    """
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # not Linux, or a CPU that does not say
    usable = getattr(os, "sched_getaffinity", None)
    return {
        "cpu": cpu,
        "cores": len(usable(0)) if usable else os.cpu_count() or 1,
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Return the versions that decide what a run computes; packages that are not installed are left out."""
    found = {"bigmodel_lab": bigmodel_lab.__version__, "python": platform.python_version()}
    for name in ("numpy", "numba", "torch"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
