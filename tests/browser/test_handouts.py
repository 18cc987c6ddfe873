"""Every handout prints on one page of A4."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Browser

from nextlat_viz.pages import write_handouts


def test_every_handout_is_one_page(browser: Browser, tmp_path: Path) -> None:
    index = write_handouts(out=tmp_path)
    page = browser.new_page()
    pages = {}
    for handout in sorted(index.parent.glob("[0-9]*.html")):
        page.goto(handout.as_uri())
        page.wait_for_selector(".main-svg")
        pages[handout.stem] = len(re.findall(rb"/Type\s*/Page[^s]", page.pdf(prefer_css_page_size=True)))
    page.close()
    assert len(pages) == 10
    assert set(pages.values()) == {1}, pages
