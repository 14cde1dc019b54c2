"""Self-contained HTML pages for the Kubeflow UI: text, headings, charts and images."""

import base64
import io
from collections.abc import Mapping, Sequence

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from components.shared.image_set import encode_png

_PAGE = jinja2.Environment(autoescape=True).from_string("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>body { font: 16px/1.5 system-ui, sans-serif; color: #1c2430; max-width: 60rem; margin: 2rem auto; padding: 0
1rem; } h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; } th, td { padding:
.4rem 1.2rem .4rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid #e3e6ea; }
figure { display: inline-block; margin: 0 1rem 1rem 0; } img, svg { max-width: 100%;
height: auto; } </style></head>
<body><h1>{{ title }}</h1>{% for part in parts %}
{{ part }}{% endfor %}
</body></html>
""")
_FIGURE = jinja2.Environment(autoescape=True).from_string(
    '<figure><img alt="{{ caption }}" src="data:image/png;base64,{{ png }}">'
    "<figcaption>{{ caption }}</figcaption></figure>"
)


def render(title: str, parts: Sequence[str]) -> str:
    """Return a page. Parts that are text are escaped; `Markup` from the functions below is not."""
    return _PAGE.render(title=title, parts=[Markup("<p>{}</p>").format(p) if type(p) is str else p for p in parts])


def heading(text: str) -> Markup:
    """Return a heading within the page."""
    return Markup("<h2>{}</h2>").format(text)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    """Return a table. Cells that are text are escaped; `Markup` from the functions here is not."""
    lines = [Markup("<tr>{}</tr>").format(Markup("").join(Markup("<th>{}</th>").format(cell) for cell in head))]
    lines += [
        Markup("<tr>{}</tr>").format(Markup("").join(Markup("<td>{}</td>").format(cell) for cell in row))
        for row in rows
    ]
    return Markup('<div class="scroll"><table>{}</table></div>').format(Markup("\n").join(lines))


def link(address: str, text: str) -> Markup:
    """Return a link; `address` is relative, and its special characters are quoted."""
    return Markup('<a href="{}">{}</a>').format(address, text)


def line_chart(lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], x_label: str, y_label: str) -> Markup:
    """Return a line chart as inline SVG; `lines` maps a name to x and y values."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    for name, (x, y) in lines.items():
        axes.plot(x, y, label=name)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return Markup(buffer.getvalue()[buffer.getvalue().index("<svg") :])


def contact_sheet(images: np.ndarray, columns: int) -> np.ndarray:
    """Return images in a grid, row by row.

    Args:
        images: (N, H, W, 3) uint8, N a multiple of `columns`.
        columns: images in a row.

    Returns:
        (N / columns · H, columns · W, 3) uint8.
    """
    count, height, width, channels = images.shape
    rows = images.reshape(count // columns, columns, height, width, channels)
    return rows.swapaxes(1, 2).reshape(count // columns * height, columns * width, channels)


def encode_jpeg_base64(pixels: np.ndarray, columns: int, max_length: int, largest: tuple[int, int] = (64, 85)) -> str:
    """Return a contact sheet as a base64 JPEG that is small enough for a record.

    Args:
        pixels: (H, W, 3) uint8.
        columns: images in a row.
        max_length: maximum number of characters. If no form fits, the smallest one is returned.
        largest: height and width of an image, in pixels, and JPEG quality of the first form that is tried.
    """
    whole, text = Image.fromarray(pixels), ""
    rows = max(1, round(columns * whole.height / whole.width))
    for size, quality in (largest, (64, 85), (64, 70), (64, 50), (48, 50), (32, 50)):
        small = whole.copy()
        small.thumbnail((columns * size, rows * size), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=quality)
        text = base64.b64encode(buffer.getvalue()).decode()
        if len(text) <= max_length:
            break
    return text


def figure(pixels: np.ndarray, caption: str) -> Markup:
    """Return one image, (H, W, 3) uint8, with its caption."""
    return Markup(_FIGURE.render(png=base64.b64encode(encode_png(pixels)).decode(), caption=caption))
