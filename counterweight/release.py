"""Release the current version to schedules.

Uploads the compiled pipeline as the newest version of the pipeline of releases, and synchronises the recurring runs
with it (`counterweight/schedule.py`). `make submit` uploads to another pipeline, so that trials change no schedule.
"""

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import kfp_server_api

from counterweight import parameters
from counterweight.client import Api, settings
from counterweight.logs import switch
from counterweight.schedule import DEFAULT, RELEASES, read_and_check, released_version, synchronise
from counterweight.submit import Package, compile_package, upload


def run(words: list[str], out: TextIO) -> int:
    """Run the command and return its exit code."""
    given = settings(words)
    parameters.use_placement(given)
    entries = read_and_check(Path(given.get("FILE") or os.path.relpath(DEFAULT)), out)
    dry = switch(given, "DRY_RUN")
    package = compile_package(switch(given, "LOCAL_IMAGES"))
    api = Api(os.environ)
    version = api.call(released_version, api)
    if version is not None and f"sha256:{package.digest}" in (version.description or ""):
        print(f"version {version.display_name} is released already", file=out, flush=True)
    elif dry:
        print(f"would release version {package.version}", file=out, flush=True)
        version = kfp_server_api.V2beta1PipelineVersion(display_name=package.version, pipeline_version_id="")
    else:
        version = release(api, package)
        print(f"release version {version.display_name}", file=out, flush=True)
    synchronise(api, entries, version, dry, out)
    return 0


def release(api: Api, package: Package) -> Any:
    """Upload the package as the newest version of the pipeline of releases and return it."""
    *_, exists = upload(api, package, RELEASES)
    if exists:  # an earlier version again: only the newest is the released one
        again = replace(package, version=f"{package.version}-{datetime.now(UTC):%y%m%d-%H%M%S}")
        upload(api, again, RELEASES)
    return api.call(released_version, api)
