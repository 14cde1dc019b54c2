"""The renderers of the report for results in the form of `metrics.json`, which a test may have changed."""

from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from components.evaluate.report import cards, formatting, page
from components.evaluate.report.gallery import Gallery
from components.shared.records import Record, Results


def build(kind: Any, value: Any) -> Any:
    """Return a value in the form of JSON as a record, unvalidated: any name and any null reaches the pages.

    Args:
        kind: a class of records, or the annotation of a field.
        value: its value.
    """
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, UnionType):
        kind = get_args(kind)[0]
    if value is None:
        return None
    if isinstance(kind, type) and issubclass(kind, Record):
        given = {name: build(kind.model_fields[name].annotation, item) for name, item in value.items()}
        return kind.model_construct(**given)
    if get_origin(kind) is dict:
        return {key: build(get_args(kind)[1], item) for key, item in value.items()}
    return [build(get_args(kind)[0], item) for item in value] if get_origin(kind) is list else value


def record(results: dict[str, Any]) -> Results:
    """Return results as the record that renderers take."""
    return build(Results, results)


def render_html(results: dict[str, Any], gallery: Gallery) -> str:
    return page.render_html(record(results), gallery)


def render_markdown(results: dict[str, Any]) -> str:
    return page.render_markdown(record(results))


def render_text(results: dict[str, Any]) -> str:
    return page.render_text(record(results))


def model_card(results: dict[str, Any]) -> str:
    return cards.model_card(record(results))


def data_sheet(results: dict[str, Any]) -> str:
    return cards.data_sheet(record(results))


def show_interval(limits: dict[str, Any] | list[float | None], sign: str = "") -> str:
    return formatting.show_interval([limits["low"], limits["high"]] if isinstance(limits, dict) else limits, sign)
