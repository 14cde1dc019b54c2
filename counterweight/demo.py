"""Show the models of a published run on a local page.

The page has no accounts: all who reach it can see the run's images. It fetches nothing from other hosts.
"""

import importlib.util
import ipaddress
import os
import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from components.shared.errors import UserError
from counterweight.keras_start import start_keras
from counterweight.run_options import read_number, read_options

OPTIONS = ("RUN", "HOST", "PORT")
LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]", "::1")
"""Names of this machine in the address of the page."""


def _choose_host(options: dict[str, str]) -> str:
    """Return the address to listen at.

    Raises:
        UserError: `option.invalid`.
    """
    host = options["HOST"] or "127.0.0.1"
    try:
        return str(ipaddress.ip_address("127.0.0.1" if host == "localhost" else host))
    except ValueError:
        raise UserError(
            f"HOST is {host!r}",
            "give an IP address: 127.0.0.1 for this machine only, 0.0.0.0 for all networks",
            "option.invalid",
            option="HOST",
        ) from None


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket, before models are loaded.

    Raises:
        UserError: `demo.cannot_listen`.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen()
    except OSError as error:
        bound.close()
        raise UserError(
            f"cannot listen at {host}, port {port} ({error.strerror})",
            "choose another PORT, or an address of this machine as HOST",
            "demo.cannot_listen",
            host=host,
            port=port,
        ) from error
    return bound


def run(words: list[str], out: TextIO) -> None:
    """Run the command until it is interrupted."""
    options = read_options(words, OPTIONS)
    host, port = _choose_host(options), read_number(options, "PORT", 7860, least=1, most=65_535)
    if importlib.util.find_spec("gradio") is None:
        raise UserError(
            "the demo requires gradio, which is not installed",
            "use `make demo`, which installs it, or run `uv sync --inexact --group demo`",
            "demo.missing_packages",
        )
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
    start_keras()
    with ExitStack() as stack:
        bound = stack.enter_context(_listen(host, port))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="counterweight-")))
        os.environ["GRADIO_TEMP_DIR"] = str(scratch / "uploads")
        from counterweight import published, reevaluate
        from counterweight.demo_model import Demo

        print(f"demo: loading the models of {options['RUN']}", file=out, flush=True)
        demo = Demo(reevaluate.open_published(options["RUN"], scratch / "run"))
        import uvicorn

        from counterweight.demo_page import create_app

        local = ipaddress.ip_address(host).is_loopback
        if not local:
            print(f"warning: every machine that reaches {host} can see the images of the run", file=out)
        config = uvicorn.Config(create_app(demo, (*LOCAL_NAMES, host) if local else ("*",)), log_level="warning")
        shown = f"[{host}]" if ":" in host else host
        print(f"{published.NOTICE}\ndemo: http://{shown}:{port} (Ctrl-C stops it)", file=out, flush=True)
        uvicorn.Server(config).run(sockets=[bound])
        # It returns after a signal only. If the process was started with SIGINT ignored, as by `&` in a script, its own
        # handler is the only one.
        raise KeyboardInterrupt
