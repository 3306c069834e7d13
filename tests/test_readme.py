"""What the first pages show and link is there, and is what ran."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
from readme_picture import PICTURES, stored  # noqa: E402


@pytest.mark.parametrize("name", PICTURES)
def test_the_readmes_pictures_are_what_the_labs_drew(name):
    drawn = stored(*PICTURES[name])
    assert (ROOT / "docs" / name).read_bytes() == drawn, "run tools/readme_picture.py"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "chapters/README.md"])
def test_every_link_of_a_page_leads_somewhere(page):
    path = ROOT / page
    links = re.findall(r"\]\(([^)#\s]+)", path.read_text("utf-8"))
    missing = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert not missing
