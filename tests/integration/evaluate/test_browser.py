"""The report in a real browser, at desktop and phone width and on paper.

Nothing breaks or is cut off, every image is shown, every text is readable, nothing is fetched.
"""

import functools
import html
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.evaluate.report.gallery import Gallery
from tests.helpers.example_results import CLASSES, example, example_gallery, example_subgroups, nulled, renamed
from tests.helpers.rendering import render_html

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None,
    reason="chromium is not installed, so the report is not tested in a browser; "
    "install Debian's chromium and fonts-dejavu-core",
)

HOSTILE = {
    "akiec": "<b onclick=alert(1)>akiec</b><script>document.title='x'</script>",
    "df": "d" * 400,
    "mel": "\u202eأورام الجلد السوداء",
    "nv": "皮膚の母斑 🧬 " * 12,
    "vasc": "'\"><img src=https://example.org/x.png>",
}
SIZES = {"desktop": (1280, 900, "screen"), "phone": (390, 844, "screen"), "paper": (680, 960, "print")}

# Faults of the rendered page, as a list of texts.
LOOK = r"""
() => {
  const found = [], wide = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > wide) found.push(`overflow: ${document.documentElement.scrollWidth} px`);
  for (const it of document.querySelectorAll("body *")) {
    const box = it.getBoundingClientRect();
    if ((box.right > wide + 1 || box.left < -1) && box.width && !it.closest(".scroll") && !it.closest("svg"))
      found.push(`beside the page: ${it.tagName} ${it.textContent.slice(0, 30)} ${Math.round(box.right)}`);
  }
  for (const it of document.images) {
    if (!it.complete || !it.naturalWidth) found.push(`broken image: ${it.alt}`);
    if (it.getBoundingClientRect().width < 16) found.push(`tiny image: ${it.alt}`);
    if (!it.alt.trim()) found.push("image without alt");
  }
  for (const it of document.querySelectorAll("svg[role=img], div[role=img]"))
    if (!it.getAttribute("aria-label")) found.push("figure without a name");
  const ids = [...document.querySelectorAll("[id]")].map(it => it.id);
  for (const id of new Set(ids)) if (ids.filter(other => other === id).length > 1) found.push(`id twice: ${id}`);
  for (const it of document.querySelectorAll("[*|href]:not([href])")) {
    const to = it.getAttributeNS("http://www.w3.org/1999/xlink", "href");
    if (!document.getElementById(to.slice(1))) found.push(`missing target: ${to}`);
  }

  const part = (colour) => colour.match(/[\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (it) => {
    for (; it; it = it.parentElement) {
      const colour = part(getComputedStyle(it).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
      if (colour[3] > 0) found.push(`half a background: ${it.tagName}`);
    }
    return [255, 255, 255];
  };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let texts = 0;
  while (walk.nextNode()) {
    const it = walk.currentNode.parentElement, style = getComputedStyle(it);
    if (!walk.currentNode.textContent.trim() || !it.getClientRects().length || it.closest("style, defs")) continue;
    texts += 1;
    const pair = [light(part(it.closest("svg") ? style.fill : style.color)), light(behind(it))].sort((a, b) => b - a);
    const size = parseFloat(style.fontSize), big = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    const words = walk.currentNode.textContent.slice(0, 30);
    if (ratio < (big ? 3 : 4.5)) found.push(`contrast ${ratio.toFixed(2)}: ${words}`);
    if (size < 9 && !matchMedia("print").matches && !it.closest("svg")) found.push(`too small, ${size} px: ${words}`);
  }
  if (texts < 200) found.push(`only ${texts} texts`);
  return found;
}
"""


def _hostile() -> tuple[dict[str, Any], Gallery]:
    results, gallery = example(2, external=True), example_gallery(2, 32, rare=["akiec", "df"])
    for old, new in HOSTILE.items():
        results, gallery = renamed(results, old, new), renamed(gallery, old, new)
    long = "/data/" + "x" * 900
    results["run"] |= {"data": long, "split": long, "settings": {"s" * 200: "t" * 900, "<i>": HOSTILE}}
    results["external"]["data"] = long
    results["synthetic"][HOSTILE["vasc"]]["failed"] = HOSTILE["akiec"] * 20
    return results, gallery


CASES = {
    "whole": lambda: (example(5, external=True) | {"subgroups": example_subgroups()}, example_gallery()),
    "hostile": _hostile,
    "nulls": lambda: (nulled(example(2, external=True)), example_gallery(1, 32)),
    "bare": lambda: (example(1), Gallery()),
    "all classes": lambda: (example(2), example_gallery(8, 192, 30.0, rare=list(CLASSES[:-1]))),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Without its sandbox, which root cannot use; the pages are our own.
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module", params=CASES)
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_html(*CASES[request.param]()), encoding="utf-8")
    return path


def _faults(browser: Any, path: Path, size: str) -> list[str]:
    """Return the faults of a page, and the errors and requests of the browser."""
    width, height, media = SIZES[size]
    page = browser.new_page(viewport={"width": width, "height": height}, is_mobile=size == "phone")
    messages: list[str] = []

    def asked(request: Any) -> None:
        if not request.url.startswith(("data:", path.as_uri())):
            messages.append(f"request: {request.url[:80]}")

    page.on("console", lambda message: messages.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: messages.append(f"error: {error}"))
    page.on("requestfailed", lambda request: messages.append(f"failed: {request.url[:80]}"))
    page.on("dialog", lambda dialog: (messages.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", asked)
    page.route("http*://**", lambda route: route.abort())
    page.emulate_media(media=media)
    page.goto(path.as_uri())
    found = page.evaluate(LOOK) + messages
    assert page.title().startswith("Counterweight: ")
    page.close()
    return found


@functools.cache
def _bare() -> str:
    return render_html(example(1), Gallery())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.filterwarnings("ignore:Glyph")
def test_report_has_no_faults(browser: Any, report: Path, size: str):
    assert _faults(browser, report, size) == []


def test_report_prints(browser: Any, report: Path):
    page = browser.new_page()
    page.goto(report.as_uri())
    paper = page.pdf(format="A4")
    page.close()
    assert paper.startswith(b"%PDF")
    assert 4 <= paper.count(b"/Type /Page\n") + paper.count(b"/Type /Page ") <= 40


def test_report_opens_in_kubeflows_frame(browser: Any, report: Path):
    """In a sandboxed frame that may only run scripts, from text."""
    page = browser.new_page(viewport={"width": 900, "height": 700})
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.set_content('<iframe sandbox="allow-scripts" style="width: 100%; height: 600px"></iframe>')
    page.eval_on_selector("iframe", "(frame, text) => { frame.srcdoc = text }", report.read_text(encoding="utf-8"))
    frame = page.frames[1]
    frame.wait_for_selector("#result")
    frame.wait_for_function("() => [...document.images].every(it => it.complete)")
    assert frame.evaluate("() => [...document.images].filter(it => !it.naturalWidth).length") == 0
    assert messages == []
    # A link within the page would leave it, because its address is that of the surrounding page; the frame blocks it.
    frame.click("nav a >> nth=1")
    page.wait_for_function("() => true")
    assert frame.evaluate("() => document.querySelector('h1').textContent") == report_title(report)
    assert page.frames[1].url == "about:srcdoc"
    page.close()


def report_title(report: Path) -> str:
    """Return the verdict of a report."""
    return html.unescape(report.read_text(encoding="utf-8").partition("<h1>")[2].partition("</h1>")[0])


def test_contents_lead_to_their_sections(browser: Any, report: Path):
    page = browser.new_page(viewport={"width": 900, "height": 700})
    page.goto(report.as_uri())
    for link in page.locator("nav a").all():
        link.click()
        target = page.locator(":target")
        assert target.count() == 1
        assert page.url.endswith(f"#{target.get_attribute('id')}")
        assert target.is_visible()
    page.close()


def test_folded_parts_are_printed(browser: Any, report: Path):
    page = browser.new_page()
    page.goto(report.as_uri())
    table = page.locator("#details td").first
    assert not table.is_visible()
    page.emulate_media(media="print")
    assert table.is_visible()
    page.close()


@pytest.mark.parametrize(
    ("planted", "fault"),
    [
        ('<p style="width: 2000px">wide</p>', "overflow: "),
        ('<p style="position: absolute; left: -50px">left</p>', "beside the page: P left"),
        ('<p style="color: #aaa">pale words</p>', "contrast 2.32: pale words"),
        ('<p style="background: #333">dark words</p>', "contrast 1.3"),
        ('<svg width="99" height="20"><text y="9" style="fill: #ccc">pale mark</text></svg>', "pale mark"),
        ('<img src="data:image/png;base64,AAAA" alt="gone" width="50">', "broken image: gone"),
        ('<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=" alt="" width="50">', "image without alt"),
        ('<p id="details"></p>', "id twice: details"),
        ('<p style="font-size: 7px">small words</p>', "too small, 7 px: small words"),
        ('<img src="https://192.0.2.1/x.png" alt="far">', "request: https://192.0.2.1/x.png"),
        ("<script>undefined.x</script>", "error: "),
    ],
)
def test_planted_fault_is_detected(browser: Any, tmp_path: Path, planted: str, fault: str):
    path = tmp_path / "report.html"
    path.write_text(_bare().replace("</main>", planted + "</main>"), encoding="utf-8")
    found = _faults(browser, path, "phone")
    assert any(fault in one for one in found), found
