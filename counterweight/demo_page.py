"""The page of `make demo`: a Gradio page that fetches nothing from elsewhere, and the web application around it."""

import base64
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import fastapi
import gradio
import jinja2
import numpy as np
from starlette.middleware.trustedhost import TrustedHostMiddleware

from components.prepare_data.image_reader import SUFFIXES
from components.shared.arms import title_of
from components.shared.errors import UserError
from components.shared.image_set import METADATA, encode_png
from components.shared.records import MAX_AGE_YEARS, MetadataEncoding, SyntheticDetails
from counterweight.demo_model import MAX_UPLOAD_BYTES, Answer, Demo, SyntheticPair
from counterweight.published import NOTICE

FRESH_S = 600
"""Uploaded files are deleted after this time."""
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; connect-src 'self'; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'self'"
)
"""Content security policy: even a changed page could not connect to another host."""
TEMPLATES = Path(__file__).with_name("demo_templates")
_PAGES = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True)


def _encode(pixels: np.ndarray) -> str:
    """Return an image, (H, W, 3) uint8, as the address of a PNG file."""
    return f"data:image/png;base64,{base64.b64encode(encode_png(pixels)).decode()}"


_PAGES.filters["png"] = _encode


def _render(name: str, **values: Any) -> str:
    return _PAGES.get_template(f"{name}.html.j2").render(title=title_of, **values)


def render_answer(demo: Demo, answer: Answer, shown: str) -> str:
    """Return an answer as HTML; all text is escaped."""
    positive = [] if all(each is None for each in answer.positive.values()) else demo.run.record.malignant
    return _render(
        "answer", answer=answer, shown=shown, classes=demo.run.classes, advice=demo.advice, positive=positive
    )


def render_error(error: UserError) -> str:
    """Return an error as HTML."""
    return _render("error", message=error.message, hint=error.hint)


def describe_quality(details: SyntheticDetails) -> str:
    """Return the quality of a class's synthetic images as a sentence."""
    named = {
        "KID": details.kid,
        "density": details.density,
        "coverage": details.coverage,
        "separability": details.separability,
        "label fidelity": details.label_fidelity,
    }
    figures = [f"{name} {value:.3g}" for name, value in named.items() if value is not None]
    return f"{details.images:,} images; {', '.join(figures) or 'too few images to measure their quality'}"


def render_synthetic(demo: Demo, key: str, pairs: Sequence[SyntheticPair], compared: int) -> str:
    """Return pairs of synthetic and training images as HTML."""
    quality = describe_quality(demo.run.results.synthetic[key])
    return _render("synthetic", quality=quality, pairs=pairs, compared=compared)


def _classify(demo: Demo, upload: str | None, example: int | None, shown: str, *metadata: Any) -> str:
    """Return the answer for an uploaded image, or for a test image of the run, as HTML.

    Args:
        demo: models and images.
        upload: path of an uploaded image.
        example: number of a test image; its own metadata are used where none are entered.
        shown: the arm whose decision is explained.
        metadata: age, sex and site, if the page asks for them.
    """
    entered = zip(METADATA, metadata, strict=False)
    known = {name: str(value) for name, value in entered if value not in (None, "")}
    try:
        if upload:
            pixels = demo.read_upload(upload)
        elif example is not None and 0 <= example < len(demo.examples):
            pixels, known = demo.examples[example].pixels, demo.examples[example].metadata | known
        else:
            raise UserError("no image is chosen", "upload an image, or choose a test image", "demo.no_image")
        shown = shown if shown in demo.arms else demo.advice.arm
        return render_answer(demo, demo.classify(pixels, shown, known), shown)
    except UserError as error:
        return render_error(error)


def _show_synthetic(demo: Demo, key: str | None, order: str) -> str:
    try:
        if key not in demo.synthetic_keys:
            raise UserError("no class is chosen", "choose a class", "demo.no_class")
        return render_synthetic(demo, key, *demo.synthetic(key, order == FARTHEST))
    except UserError as error:
        return render_error(error)


NEAREST_FIRST, FARTHEST = "nearest to a training image", "farthest from any training image"


def _metadata_fields(encoding: MetadataEncoding | None) -> list[gradio.components.Component]:
    """Return the optional fields for age, sex and site; none if no model gets them."""
    if encoding is None:
        return []
    return [
        gradio.Number(value=None, label="Age in years (optional)", minimum=0, maximum=MAX_AGE_YEARS),
        gradio.Dropdown(["", *encoding.sex], value="", label="Sex (optional)"),
        gradio.Dropdown(["", *encoding.localization], value="", label="Site (optional)"),
    ]


def build(demo: Demo) -> gradio.Blocks:
    """Return the page."""
    arms = [(title_of(name), name) for name in demo.arms]
    examples = [(f"{each.dx}: {each.name}", number) for number, each in enumerate(demo.examples)]
    with gradio.Blocks(title="Counterweight demo", analytics_enabled=False, delete_cache=(60, FRESH_S)) as page:
        gradio.HTML("<h1>Counterweight demo</h1>")
        gradio.HTML(_render("notice", notice=NOTICE, data=demo.run.record.data, size=demo.run.record.image_size))
        with gradio.Tab("Classify an image"):
            upload = gradio.File(label="Your image", file_types=list(SUFFIXES))
            example = gradio.Dropdown(examples, value=None, label="Or a test image of the run")
            shown = gradio.Dropdown(arms, value=demo.advice.arm, label="Arm whose decision is explained")
            inputs = [upload, example, shown, *_metadata_fields(demo.encoding)]
            button = gradio.Button("Classify", variant="primary")
            answer = gradio.HTML()
            button.click(lambda *given: _classify(demo, *given), inputs, answer, api_visibility="private")
        if demo.synthetic_keys:
            with gradio.Tab("Synthetic images"):
                key = gradio.Dropdown(
                    demo.synthetic_keys, value=demo.synthetic_keys[0], label="Class, or source and class"
                )
                order = gradio.Radio([NEAREST_FIRST, FARTHEST], value=NEAREST_FIRST, label="First")
                pairs = gradio.HTML(lambda: _show_synthetic(demo, demo.synthetic_keys[0], NEAREST_FIRST))
                for each in (key, order):
                    each.change(
                        lambda *given: _show_synthetic(demo, *given), [key, order], pairs, api_visibility="private"
                    )
    return page


def create_app(demo: Demo, hosts: Sequence[str] = ("*",)) -> fastapi.FastAPI:
    """Return the web application.

    Args:
        demo: models and images.
        hosts: names under which it may be called; others are refused, so that a web page elsewhere cannot reach this
            machine under another host name.
    """
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))

    @app.middleware("http")
    async def add_headers(
        request: fastapi.Request, call_next: Callable[[fastapi.Request], Awaitable[fastapi.Response]]
    ) -> fastapi.Response:
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    fonts = ["system-ui", "sans-serif"]
    return gradio.mount_gradio_app(
        app,
        build(demo),
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=MAX_UPLOAD_BYTES,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        theme=gradio.themes.Default(font=fonts, font_mono=["ui-monospace", "monospace"]),
        css_paths=TEMPLATES / "demo.css",
    )
