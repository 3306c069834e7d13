"""In a real JupyterLab: a freshly cloned notebook shows its figures, and after Run All its slider moves the picture."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from bigmodel_lab.book import notebooks

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("playwright") is None, reason="playwright is not installed"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]

CELLS = {
    "c98-setup": "import matplotlib.pyplot as plt\nfrom bigmodel_lab import show\nshow.use()",
    "c98-figure": "fig, ax = plt.subplots()\nax.plot([1, 4, 9]);",
    "c98-slider": """\
def draw(power):
    fig, ax = plt.subplots()
    ax.plot([1, 2**power, 3**power])
    return fig
show.explore(draw, power=[1, 2, 3], caption=lambda power: f"ends at {3**power}")""",
}


@pytest.fixture
def lab(tmp_path):
    """A JupyterLab that has never seen the notebook in it, and so does not trust it; its address."""
    (tmp_path / "work").mkdir()
    path = tmp_path / "work" / "c98_test.ipynb"
    nb = new_notebook(
        cells=[new_code_cell(source, id=cell_id) for cell_id, source in CELLS.items()]
    )
    path.write_text(json.dumps(nb), "utf-8")
    assert notebooks.main(["run", str(path)]) == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {"JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"}
    own |= {"JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR"}
    log = (tmp_path / "log").open("w")
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    options += ["--ServerApp.port_retries=0", "--IdentityProvider.token="]
    options += [f"--ServerApp.root_dir={path.parent}"]
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *options],
        env=os.environ | {name: str(tmp_path / name) for name in own},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"{address}/api", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < end, (tmp_path / "log").read_text()
                time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait(30)
        log.close()


def test_figures_before_and_slider_after_running(lab):
    from playwright.sync_api import sync_playwright

    foreign = set()
    with sync_playwright() as p:
        browser = p.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1200, "height": 1400})
        page.set_default_timeout(90_000)
        page.on(
            "request",
            lambda r: (
                r.url.startswith((lab, lab.replace("http", "ws"), "data:", "blob:"))
                or foreign.add(r.url)
            ),
        )
        page.goto(f"{lab}/lab/tree/c98_test.ipynb?reset", wait_until="domcontentloaded")

        # not trusted: PNG for the figure and for the slider's first frame, no SVG, no dead widget
        page.wait_for_function("document.querySelectorAll('.jp-OutputArea img').length == 2")
        sources = page.eval_on_selector_all(
            ".jp-OutputArea img", "all => all.map(i => i.src.slice(0, 21))"
        )
        assert sources == ["data:image/png;base64"] * 2
        assert page.locator(".jp-OutputArea").get_by_text("Error displaying widget").count() == 0
        if shots := os.environ.get("SCREENSHOTS"):
            page.screenshot(path=f"{shots}/untrusted.png")

        page.locator("#jp-main-statusbar").get_by_text(re.compile("Idle")).wait_for()
        page.locator(".jp-Notebook .jp-Cell").first.click()
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        picture = page.locator(".jp-OutputArea [role=img]").last
        picture.wait_for()
        assert picture.get_attribute("aria-label") == "ends at 3"
        before = picture.inner_html()
        page.locator(".noUi-handle").focus()
        page.keyboard.press("ArrowRight")
        page.locator('.jp-OutputArea [aria-label="ends at 9"]').wait_for()
        assert picture.inner_html() != before
        assert page.locator(".jp-OutputArea .widget-readout").inner_text() == "2"
        if shots:
            page.screenshot(path=f"{shots}/after.png")
        browser.close()
    assert foreign == set()
