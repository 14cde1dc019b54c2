"""Publish a run's report as the sample of the documentation: `python -m scripts.sample_report RUN`.

Copies `RUN/report.html` to docs/assets/sample-report.html, and renders docs/assets/hero.png from it with the installed
Chromium: the verdict, and the real and synthetic images of each class with synthetic images.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "docs" / "assets"
WIDTH_PX, MARGIN_PX = 1000, 16
HIDE = "nav, header > p:not([class]), .about, .class > p, .class .wide + .wide { display: none }"
"""Style that reduces the header to the verdict, and a class of the gallery to its name and images."""


def screenshots(page: Page, folder: Path) -> list[Path]:
    """Return images of the verdict and of each class that has synthetic images."""
    paths = [folder / "verdict.png"]
    page.add_style_tag(content=HIDE)
    page.locator("header").first.screenshot(path=paths[0])
    for number, section in enumerate(page.locator("section.class:not(.copies)").all()):
        if section.locator("figure").count() > 1:
            paths.append(folder / f"{number}.png")
            section.screenshot(path=paths[-1])
    return paths


def main(run: Path) -> None:
    """Write the two files of a finished run."""
    report = run / "report.html"
    (ASSETS / "sample-report.html").write_bytes(report.read_bytes())
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH_PX, "height": 800})
        page.goto(report.resolve().as_uri())
        images = [Image.open(path).convert("RGB") for path in screenshots(page, Path(folder))]
        browser.close()
        height = sum(image.height for image in images) + MARGIN_PX * (len(images) + 1)
        hero = Image.new("RGB", (WIDTH_PX, height), "white")
        top = MARGIN_PX
        for image in images:
            hero.paste(image, (MARGIN_PX, top))
            top += image.height + MARGIN_PX
        hero.save(ASSETS / "hero.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
