"""A module imports from its own row of the design or a row above it, and heavy packages stay in their rooms."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "bigmodel_lab"
ROWS = [
    {"errors", "files", "units", "rng", "shell"},
    {"ops", "data", "text"},
    {"models", "plan", "econ"},
    {"train", "dist"},
    {"show", "course"},
    {"book", "cli"},
]
ROW = {room: row for row, rooms in enumerate(ROWS) for room in rooms}
HEAVY = {  # package -> the rooms that may import it at module level, and those that may inside a function
    "torch": {"models", "train", "dist", "ops/torch"},
    "numba": {"ops", "data", "text", "econ", "dist"},
    "matplotlib": {"show", "course"},
    "ipywidgets": {"show"},
    "nbformat": {"book"},
    "nbclient": {"book"},
    "sklearn": {"data"},
    "pint": {"units", "plan", "econ"},
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path):
    """Yield (module, line, is it at module level) for every import in a file, package-relative names resolved."""
    tree = ast.parse(path.read_text("utf-8"))
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    top = set()
    for node in ast.walk(tree):  # walk is breadth-first: a body is seen before what is nested in it
        if isinstance(node, ast.Module | ast.If | ast.Try | ast.ClassDef) and (
            isinstance(node, ast.Module) or node in top
        ):
            top.update(ast.iter_child_nodes(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(parts[: -node.level or None]) if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{stem}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield name, node.lineno, node in top


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_import_directions(path):
    here = room(path)
    for name, line, _ in imports(path):
        parts = name.split(".")
        if parts[0] != "bigmodel_lab" or len(parts) < 2 or parts[1] not in ROW or here not in ROW:
            continue
        assert parts[1] == here or ROW[parts[1]] <= ROW[here], (
            f"{path.relative_to(PACKAGE)}:{line} imports {name}: {here} is in row {ROW[here]} of the design, "
            f"{parts[1]} in row {ROW[parts[1]]}, and a row imports from itself or from above only"
        )


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_packages_stay_in_their_rooms(path):
    file = str(path.relative_to(PACKAGE))
    room_or_part = {room(path), str(path.parent.relative_to(PACKAGE))}
    for name, line, _ in imports(path):
        allowed = HEAVY.get(name.split(".")[0])
        assert allowed is None or room_or_part & allowed, (
            f"{file}:{line} imports {name}, which is allowed in {sorted(allowed)} only"
        )


def test_every_room_has_a_row():
    rooms = {room(path) for path in MODULES} - {"__init__"}
    assert rooms <= ROW.keys(), f"no row of the design holds {sorted(rooms - ROW.keys())}"


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    heavy = {"numpy", "numba", "torch", "matplotlib", "IPython", "ipywidgets", "scipy", "sklearn"}
    assert not heavy & loaded_after("import bigmodel_lab")


@pytest.mark.parametrize("name", ["dist", "data", "course", "plan", "cli"])
def test_rooms_that_must_be_quick_do_not_load_torch(name):
    assert "torch" not in loaded_after(f"import bigmodel_lab.{name}")


def test_import_time():
    """Ten milliseconds here; the limit is loose because the machine may be busy."""
    code = (
        "import time; t = time.perf_counter(); import bigmodel_lab; print(time.perf_counter() - t)"
    )
    run = [sys.executable, "-c", code]
    seconds = [
        float(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
        for _ in range(3)
    ]
    assert min(seconds) < 0.2
