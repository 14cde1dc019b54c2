"""Expect a user error by its code."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from components.shared.errors import UserError


@contextmanager
def raises_user_error(code: str, **fields: Any) -> Iterator[pytest.ExceptionInfo[UserError]]:
    """Expect a `UserError` with this code, at least these fields, a hint, and a message of one printable line."""
    with pytest.raises(UserError) as caught:
        yield caught
    error = caught.value
    assert error.code == code
    assert fields.items() <= error.fields.items()
    assert error.hint
    assert str(error).isprintable()
    assert not re.search(r"[.!]$", f"{error} {error.hint}")
