"""The page of `make demo`: what it computes, hostile uploads and names, and the page in a real browser."""

import contextlib
import importlib.util
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.shared.errors import UserError
from components.shared.image_set import open_pixels, read_header, write_image_set
from counterweight import demo as command
from counterweight import reevaluate
from counterweight.demo_model import Demo
from tests.integration.evaluate.conftest import SYNTHETIC_IMAGES, RunFolders, write_manifest

pytestmark = [
    pytest.mark.usefixtures("no_figures"),
    pytest.mark.skipif(
        importlib.util.find_spec("gradio") is None,
        reason="THE DEMO IS NOT TESTED: the dependency group `demo` is not installed",
    ),
]
CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


def open_demo(folder: Path, scratch: Path) -> Demo:
    return Demo(reevaluate.open_published(str(folder), scratch))


@pytest.fixture(scope="module")
def demo(published_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The models of the published run."""
    return open_demo(published_run, tmp_path_factory.mktemp("scratch"))


@contextlib.contextmanager
def serve(demo: Demo, hosts: tuple[str, ...] = command.LOCAL_NAMES) -> Iterator[str]:
    """Serve the page in a thread, and yield its address."""
    import uvicorn

    from counterweight.demo_page import create_app

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen()
        server = uvicorn.Server(uvicorn.Config(create_app(demo, hosts), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join(timeout=60)


def test_classify_test_image_gets_the_probabilities_of_all_arms(demo: Demo) -> None:
    example = demo.examples[0]
    assert (example.name, example.dx) == ("test-df-0", "df")
    answer = demo.classify(example.pixels, "oversampled")
    assert list(answer.probabilities) == list(demo.run.arms) == ["baseline", "oversampled", "augmented@1"]
    for name, probabilities in answer.probabilities.items():
        assert probabilities == pytest.approx(demo.arms[name].predict(example.pixels[None])[0])
        assert answer.positive[name] == (probabilities[2] > demo.arms[name].threshold)
    assert answer.explained == demo.run.classes[answer.probabilities["oversampled"].argmax()]
    assert answer.heat is not None
    assert answer.heat.shape == (32, 32, 3)
    distances = [each.distance for each in answer.neighbours]
    assert distances == sorted(distances)
    assert {each.dx for each in answer.neighbours} == {"df"}  # colours of the classes differ by far more than noise
    assert not answer.seen


def test_classify_training_image_is_seen_and_noise_is_unlike(demo: Demo, run: RunFolders) -> None:
    with open_pixels(run.arguments["training_data"] / "train.parquet", "train") as pixels:
        answer = demo.classify(pixels.images[0], "baseline")
    assert (answer.seen, answer.unlike, answer.neighbours[0].name) == (True, False, "train-df-0")
    noise = np.zeros((32, 32, 3), np.uint8)
    noise[::2] = 255
    assert demo.classify(noise, "baseline").unlike


def test_classify_copies_the_network_once(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the memory of the page would grow with each image."""
    example = demo.examples[0]
    first = demo.classify(example.pixels, "baseline")
    monkeypatch.setattr(keras.models, "clone_model", None)
    second = demo.classify(example.pixels, "baseline")
    assert first.heat is not None
    assert np.array_equal(first.heat, second.heat)


def test_synthetic_pairs_are_sorted_by_distance(demo: Demo) -> None:
    assert demo.synthetic_keys == ["df"]
    nearest, count = demo.synthetic("df", False)
    farthest, _ = demo.synthetic("df", True)
    assert count == len(nearest) == SYNTHETIC_IMAGES
    distances = [pair.neighbour.distance for pair in nearest]
    assert distances == sorted(distances)
    assert [pair.number for pair in farthest] == [pair.number for pair in reversed(nearest)]
    assert {pair.neighbour.dx for pair in nearest} == {"df"}
    images = np.random.default_rng(5).integers(0, 256, (SYNTHETIC_IMAGES, 32, 32, 3)).astype(np.uint8)
    assert np.array_equal(nearest[0].pixels, images[nearest[0].number])


def test_demo_with_missing_files_or_columns_is_refused(published: Path, tmp_path: Path) -> None:
    """They are read when the page shows them, and the page shows the error."""
    path = published / "reference.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["thumbnail"]), path)
    synthetic = published / "synthetic" / "df.parquet"
    header = read_header(synthetic)
    with write_image_set(synthetic, header):
        pass
    write_manifest(published)
    opened = open_demo(published, tmp_path)
    with pytest.raises(UserError) as caught:
        opened.classify(opened.examples[0].pixels, "baseline")
    assert caught.value.code == "reference.invalid"
    with pytest.raises(UserError) as caught:
        opened.synthetic("df", False)
    assert caught.value.code == "image_set.corrupt"


def write_uploads(folder: Path) -> dict[str, Path]:
    """Write files that prepare_data refuses as well."""
    paths = {name: folder / f"{name}.png" for name in ("empty", "text", "tiny", "16 bit", "transparent", "bomb", "cut")}
    paths["empty"].touch()
    paths["text"].write_text("<script>alert(1)</script>")
    Image.new("RGB", (3, 3)).save(paths["tiny"])
    Image.fromarray(np.full((40, 40), 40_000, np.uint16)).save(paths["16 bit"])
    Image.new("RGBA", (40, 40), (9, 9, 9, 128)).save(paths["transparent"])
    Image.new("1", (30_000, 30_000)).save(paths["bomb"])
    Image.new("RGB", (400, 400), (80, 90, 10)).save(paths["cut"])
    paths["cut"].write_bytes(paths["cut"].read_bytes()[:-300])
    return paths


def test_read_upload_hostile_files_are_refused(demo: Demo, tmp_path: Path) -> None:
    for name, path in write_uploads(tmp_path).items():
        with pytest.raises(UserError) as caught:
            demo.read_upload(path)
        assert caught.value.code == "demo.unusable_image", name


def test_read_upload_is_resized_as_in_training(demo: Demo, tmp_path: Path) -> None:
    large = np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)
    Image.fromarray(large).save(tmp_path / "large.png")
    expected = Image.fromarray(large).resize((32, 32), Image.Resampling.LANCZOS)
    assert np.array_equal(demo.read_upload(tmp_path / "large.png"), np.asarray(expected))


HOSTILE = "<script>document.title='x'</script>${1+1}{{7*7}}"


@pytest.fixture(scope="module")
def hostile(published_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The models of a run whose images have hostile ids."""
    folder = Path(shutil.copytree(published_run, tmp_path_factory.mktemp("hostile") / "run"))
    table = pq.read_table(folder / "reference.parquet")
    table = table.set_column(0, "image_id", pa.array([HOSTILE] * table.num_rows))
    pq.write_table(table, folder / "reference.parquet")
    write_manifest(folder)
    return open_demo(folder, folder.parent)


def test_render_hostile_names_are_escaped(hostile: Demo) -> None:
    from counterweight.demo_page import render_answer, render_error

    answer = hostile.classify(hostile.examples[0].pixels, "baseline")
    assert answer.neighbours[0].name == HOSTILE
    text = render_answer(hostile, answer, "baseline")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "<b>" not in render_error(UserError("<b>", "<b>", "demo.no_image"))


def test_app_other_host_names_are_refused_and_headers_forbid_other_hosts(demo: Demo) -> None:
    with serve(demo) as address:
        with urllib.request.urlopen(address) as response:
            assert "connect-src 'self'" in response.headers["Content-Security-Policy"]
            assert response.headers["X-Content-Type-Options"] == "nosniff"
        for name in ("localhost", "[::1]"):
            request = urllib.request.Request(address, headers={"Host": f"{name}:7860"})
            with urllib.request.urlopen(request) as response:
                assert response.status == 200
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(urllib.request.Request(address, headers={"Host": "rebound.example"}))
        assert caught.value.code == 400
        # Only files that the page itself offers can be read.
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{address}gradio_api/file=/etc/hostname")
        assert caught.value.code in (403, 404)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Without its sandbox, which root cannot use; the pages are our own.
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def address(demo: Demo) -> Iterator[str]:
    with serve(demo) as served:
        yield served


def check_layout(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    page.wait_for_function("[...document.querySelectorAll('.cw img')].every(it => it.complete)")
    assert (
        page.evaluate("[...document.querySelectorAll('.cw img')].filter(it => !it.naturalWidth || !it.alt).length") == 0
    )
    assert page.get_by_text("not a medical device").is_visible()


@needs_chromium
@pytest.mark.parametrize("size", SIZES)
def test_page_classifies_and_shows_synthetic_images(browser: Any, address: str, size: str, tmp_path: Path) -> None:
    width, height = SIZES[size]
    page = browser.new_page(viewport={"width": width, "height": height}, is_mobile=size == "phone")
    messages: list[str] = []
    page.on("console", lambda it: it.type == "error" and messages.append(it.text))
    page.on("pageerror", lambda error: messages.append(f"error: {error}"))
    page.on("request", lambda it: it.url.startswith((address, "data:", "blob:")) or messages.append(it.url))
    page.goto(address)
    page.get_by_role("button", name="Classify").click()
    page.get_by_text("error: no image is chosen").wait_for()
    check_layout(page)

    page.get_by_label("Or a test image of the run").click()
    page.get_by_role("option", name="vasc: test-vasc-0").click()
    page.get_by_role("button", name="Classify").click()
    page.get_by_text("Nearest training images").wait_for()
    check_layout(page)
    table = page.locator(".cw table")
    assert table.locator("thead th").all_inner_texts() == ["arm", "df", "nv", "vasc", "positive"]
    assert table.locator("tbody tr").count() == 3
    assert page.get_by_text("(the report’s advice: ").count() == 1
    assert page.locator(".cw figure").count() == 2 + 6

    files = write_uploads(tmp_path)
    stripes = np.zeros((50, 60, 3), np.uint8)
    stripes[::2] = 255
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    page.locator("input[type=file]").set_input_files(files["text"])
    page.get_by_text("text.png").or_(page.get_by_text("text", exact=True)).first.wait_for()
    page.get_by_role("button", name="Classify").click()
    page.get_by_text("error: the image cannot be used: not an image").wait_for()
    page.get_by_label("Remove").or_(page.get_by_label("Clear")).first.click()
    page.locator("input[type=file]").set_input_files(tmp_path / "stripes.png")
    page.get_by_text("stripes").first.wait_for()
    page.get_by_role("button", name="Classify").click()
    page.get_by_text("Unlike the training data:").wait_for()
    check_layout(page)

    page.get_by_role("tab", name="Synthetic images").click()
    page.get_by_label("Class, or source and class").click()
    page.get_by_role("option", name="df").click()
    page.get_by_text(f"{SYNTHETIC_IMAGES} of {SYNTHETIC_IMAGES} images").wait_for()
    first = page.locator(".cw .pair figcaption").first.inner_text()
    page.get_by_label("farthest from any training image").click()
    page.wait_for_function("text => document.querySelector('.cw .pair figcaption').innerText !== text", arg=first)
    check_layout(page)
    assert page.title() == "Counterweight demo"
    assert messages == []
    page.close()


@needs_chromium
def test_page_hostile_names_are_shown_as_text(browser: Any, hostile: Demo) -> None:
    with serve(hostile) as address:
        page = browser.new_page()
        page.goto(address)
        page.get_by_label("Or a test image of the run").click()
        page.get_by_role("option", name="df: test-df-0").click()
        page.get_by_role("button", name="Classify").click()
        page.get_by_text("Nearest training images").wait_for()
        assert HOSTILE in page.locator(".cw figcaption").last.inner_text()
        assert page.title() == "Counterweight demo"
        page.close()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], "option.missing"),
        (["RUN={tmp}/nowhere"], "option.invalid"),
        (["RUN={run}", "HOST=example.org"], "option.invalid"),
        (["RUN={run}", "PORT=0"], "option.invalid"),
        (["RUN={run}", "PORT=65536"], "option.invalid"),
        (["RUN={run}", "PORT=http"], "option.invalid"),
        (["RUN={run}", "HOST=192.0.2.1"], "demo.cannot_listen"),
        (["RUN={run}", "PORT={used}"], "demo.cannot_listen"),
        (["RUN={tmp}", "PORT={free}"], "run.missing_file"),
    ],
)
def test_command_bad_options_are_refused(published_run: Path, tmp_path: Path, words: list[str], code: str) -> None:
    with socket.socket() as used, socket.socket() as free:
        used.bind(("127.0.0.1", 0))
        used.listen()
        free.bind(("127.0.0.1", 0))
        ports = {"used": used.getsockname()[1], "free": free.getsockname()[1]}
        free.close()
        with pytest.raises(UserError) as caught:
            command.run([word.format(run=published_run, tmp=tmp_path, **ports) for word in words], io.StringIO())
    assert caught.value.code == code
    assert caught.value.hint


def test_command_without_gradio_is_refused(published_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        command.run([f"RUN={published_run}"], io.StringIO())
    assert caught.value.code == "demo.missing_packages"


def test_command_serves_until_it_is_interrupted(published_run: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[3])}
    process = subprocess.Popen(
        [sys.executable, "-m", "counterweight", "demo", f"RUN={published_run}", f"PORT={port}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                break
        assert "not a medical device" in "".join(lines)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as response:
            assert b"Counterweight demo" in response.read()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 130
    finally:
        process.kill()
    assert list(tmp_path.iterdir()) == []
