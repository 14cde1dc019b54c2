"""YAML from users, in which a few lines of aliases cannot stand for a billion values."""

from typing import Any

import yaml

MAX_VALUES = 100_000
"""Maximum number of values in a document, with those that aliases repeat."""


def load_yaml(text: str) -> Any:
    """Return the content of a YAML document.

    Raises:
        yaml.YAMLError: it is not valid, nested too deeply, or has more than `MAX_VALUES` values.
        ValueError: it has a date such as 2026-13-99.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _count(node, {}) > MAX_VALUES:
            raise yaml.YAMLError(f"the content has more than {MAX_VALUES:,} values")
        return loader.construct_document(node)
    except RecursionError as error:
        raise yaml.YAMLError("the content is nested too deeply") from error
    finally:
        loader.dispose()


def _count(node: yaml.Node, counts: dict[int, int]) -> int:
    """Return the number of values of a node; `counts` has those of nodes that were counted."""
    if id(node) not in counts:
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        counts[id(node)] = 1 + sum(_count(part, counts) for part in parts)
    return counts[id(node)]
