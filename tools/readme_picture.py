"""Write docs/one_model.png: the picture at the top of the README is the stored output of a cell of Lab 2."""

import base64
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "one_model.png"


def stored() -> bytes:
    """Return the PNG that the cell L02-curves-figure put out when the lab was last executed."""
    path = ROOT / "labs" / "L02_two_ranks_one_model.ipynb"
    cells = {c["id"]: c for c in json.loads(path.read_text("utf-8"))["cells"]}
    outputs = cells["L02-curves-figure"]["outputs"]
    png = next(o["data"]["image/png"] for o in outputs if "image/png" in o.get("data", {}))
    return base64.b64decode("".join(png))


if __name__ == "__main__":
    PICTURE.write_bytes(stored())
