"""Pages of the course: every handout prints on one page of A4; a lesson plays without a kernel."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Browser, expect

from nextlat_viz.pages import write_handouts, write_lesson
from nextlat_viz.pages.handout import LESSONS
from tests.synthetic import make_latents

from .lab import ARTIFACTS


def test_every_handout_is_one_page(browser: Browser, tmp_path: Path) -> None:
    index = write_handouts(out=tmp_path)
    handouts = sorted(index.parent.glob("[0-9]*.html"))
    assert [path.stem for path in handouts] == sorted(path.stem for path in LESSONS.glob("[0-9]*.ipynb"))
    assert len(handouts) == 10
    page = browser.new_page()
    pages = {}
    for handout in handouts:
        visible = re.sub(r"<script.*?</script>|<style.*?</style>", "", handout.read_text("utf-8"), flags=re.S)
        # Neither Markdown nor LaTeX is left.
        assert not re.search(r"\*\*|\$|\\[a-z]", visible.partition("<h2>Exercise")[0]), handout.stem
        page.goto(handout.as_uri())
        page.wait_for_selector(".main-svg")
        pages[handout.stem] = len(re.findall(rb"/Type\s*/Page[^s]", page.pdf(prefer_css_page_size=True)))
    page.close()
    assert set(pages.values()) == {1}, pages


def test_a_lesson_plays_without_a_kernel(browser: Browser, tmp_path: Path) -> None:
    latents = [make_latents(n=40, length=8), make_latents(label="next-token", n=40, length=8, noise=0.6)]
    lesson = {
        "title": "Two models & one string", "world": "rrxor",
        "steps": [
            {"look": "Where <it> is.", "panel": "world", "set": {"episode": 3, "position": 5}},
            {"look": "The bars.", "panel": "next",
             "ask": {"question": "Which is it?", "options": ["0 and 1 alike", "1"], "answer": "1"}},
            {"look": "The pairs.", "panel": "pairs"},
        ],
    }  # fmt: skip
    path = write_lesson(lesson, tmp_path / "lesson.html", *latents)
    context = browser.new_context(viewport={"width": 900, "height": 800}, offline=True)
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.as_uri())
    says, count = page.locator("#says"), page.locator("#count")
    expect(says).to_have_text("Where <it> is.")
    expect(page.locator(".step:visible .main-svg").first).to_be_visible()
    page.locator("#next").click()
    expect(count).to_have_text("step 2 of 3")
    expect(says).to_contain_text("Which is it?")
    expect(page.locator("#next")).to_be_disabled()
    expect(page.locator(".shown:visible")).to_have_count(0)
    page.get_by_role("button", name="0 and 1 alike").click()
    expect(says).to_have_text("Not so: 1. The bars.")
    expect(page.locator(".step:visible .main-svg").first).to_be_visible()
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTIFACTS / "lesson-page.png")
    page.emulate_media(color_scheme="dark")
    page.screenshot(path=ARTIFACTS / "lesson-page-dark.png")
    page.locator("#next").click()
    expect(page.locator(".step:visible table")).to_contain_text("other history")
    expect(page.locator("#next")).to_be_disabled()
    page.locator("#back").click()
    expect(says).to_have_text("Not so: 1. The bars.")
    assert not errors
    context.close()
