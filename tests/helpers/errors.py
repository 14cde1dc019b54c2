"""Expect a user error by its code."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from components.shared.errors import UserError


@contextmanager
def raises_user_error(code: str) -> Iterator[pytest.ExceptionInfo[UserError]]:
    """Expect a `UserError` with this code, a hint, and a message of one printable line without a full stop."""
    with pytest.raises(UserError) as caught:
        yield caught
    error = caught.value
    assert error.code == code
    assert error.hint
    assert str(error).isprintable()
    assert not re.search(r"[.!]$", f"{error} {error.hint}")
