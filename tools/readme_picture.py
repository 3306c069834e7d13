"""Write the README's pictures of notebooks into docs/: each is the stored output of a cell."""

import base64
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURES = {  # file in docs/: notebook, cell
    "one_model.png": ("labs/L02_two_ranks_one_model.ipynb", "L02-curves-figure"),
    "strategies.png": ("labs/L10_startup_simulator.ipynb", "L10-crossing-figure"),
}


def stored(notebook: str, cell: str) -> bytes:
    """Return the PNG that the cell put out when the notebook was last executed."""
    cells = {c["id"]: c for c in json.loads((ROOT / notebook).read_text("utf-8"))["cells"]}
    outputs = cells[cell]["outputs"]
    png = next(o["data"]["image/png"] for o in outputs if "image/png" in o.get("data", {}))
    return base64.b64decode("".join(png))


if __name__ == "__main__":
    for name, place in PICTURES.items():
        (ROOT / "docs" / name).write_bytes(stored(*place))
