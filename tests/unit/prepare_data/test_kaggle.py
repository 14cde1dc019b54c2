import socket
from collections.abc import Iterator

import pytest
import requests

from components.prepare_data.sources.kaggle import _time_limit


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_requests_without_a_limit_get_one(silent_server: str) -> None:
    send = requests.Session.send
    with _time_limit(0.2), pytest.raises(requests.Timeout):
        requests.get(silent_server, timeout=None)
    assert requests.Session.send is send
