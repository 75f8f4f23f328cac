"""Draw the pictures of docs/how-to/explore.md: a chart of each notebook, as it draws it over a lake that is there.

Take the lake of a demo whose shops have traded for some minutes: `cdc-lake demo --keep`, then
python scripts/screenshot_notebooks.py .cdc-lake/demo/cdc-lake.yaml [FOLDER]; with a folder, all charts go into it.
"""

from __future__ import annotations

import base64
import importlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbclient
import nbformat
from matplotlib.figure import Figure
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS, PICTURES = ROOT / "notebooks", ROOT / "docs" / "how-to" / "notebooks"
# The chart of each notebook that the page shows.
SHOWN = {
    "demand": "index",
    "stockouts": "lost",
    "prices": "category",
    "shrinkage": "where",
    "last_night": "events",
    "stock": "low",
    "sales": "3",
}
_DPI, _COLOURS = 110, 160


def charts(name: str) -> Iterator[tuple[str, bytes]]:
    """The charts of a notebook by their names, as PNG; those of the classic one are numbered."""
    if (NOTEBOOKS / f"explore_{name}.py").is_file():
        _, found = importlib.import_module(f"explore_{name}").app.run()
        for word, value in found.items():
            if isinstance(value, Figure):
                yield word.removesuffix("_chart"), _png(value)
        return
    notebook: Any = nbformat.read(NOTEBOOKS / f"explore_{name}.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    pictures = [o["data"]["image/png"] for o in outputs if "image/png" in o.get("data", {})]
    yield from ((str(n), base64.b64decode(picture)) for n, picture in enumerate(pictures, 1))


def _png(figure: Figure) -> bytes:
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=_DPI, format="png")
    return drawn.getvalue()


def small(picture: bytes) -> bytes:
    """A PNG of few colours: charts have no more, and it is a third of the size."""
    with Image.open(io.BytesIO(picture)) as image:
        whole = io.BytesIO()
        image.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(whole, "png", optimize=True)
    return whole.getvalue()


def main() -> None:
    """Draw."""
    os.environ["CDC_LAKE_CONFIG"] = str(Path(sys.argv[1]).absolute())
    sys.path.insert(0, str(NOTEBOOKS))
    target = Path(sys.argv[2]) if len(sys.argv) > 2 else PICTURES
    target.mkdir(parents=True, exist_ok=True)
    for name, shown in SHOWN.items():
        for word, picture in charts(name):
            if target != PICTURES:
                (target / f"{name}-{word}.png").write_bytes(small(picture))
            elif word == shown:
                (target / f"{name}.png").write_bytes(small(picture))


if __name__ == "__main__":
    main()
