"""Build and push the images of the phases: `python -m counterweight.build_images build|push [NAME=value …]`.

    build   build the image of each phase, counterweight/<phase>:<hash of its content>, with Docker or Podman
    push    build missing images, push them to REGISTRY, and write docker/digests.json, which `compile` reads

    PHASES        phases, separated by commas (default: all)
    GPU           tensorflow or jax: install CUDA in the images of the phases with an accelerator (default: none)
    PLACEMENT     another file than manifests/placement.yaml, which gives phases an accelerator
    REGISTRY      where to push to: host[:port]/path
    PYTHON_IMAGE  the image that all others start from (default: the one that docker/Dockerfile names)

The environment variables PODMAN_BUILD_FLAGS and PODMAN_PUSH_FLAGS are passed to Podman. Exit codes: see
`components.shared.errors.ExitCode`.
"""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time

from components.container_images import BASE, ROOT, content, image, repository
from components.placement import FILE_VARIABLE, placement
from components.shared.errors import UserError
from components.shared.files import write_text
from components.shared.log import duration
from counterweight import parameters
from counterweight.exit_codes import run_command

DIGESTS = ROOT / "docker" / "digests.json"
LOGS = ROOT / "build" / "images"
PHASES = sorted(path.parent.name for path in (ROOT / "components").glob("*/Dockerfile"))
LIBRARIES = ("tensorflow", "jax")
OPTIONS = ("PHASES", "GPU", "REGISTRY", "PYTHON_IMAGE", "PLACEMENT")
_REGISTRY = re.compile(r"[a-z0-9][a-z0-9.-]*(:\d+)?(/[a-z0-9._-]+)*")


def _output(*command: str) -> str | None:
    """Return what a command prints; None if it fails or is not installed."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def engine() -> str:
    """Return the command whose engine responds: `docker` or `podman`.

    The command `docker` may be an alias of Podman, so the answer of the server decides.

    Raises:
        UserError: `images.no_engine`.
    """
    server = _output("docker", "version", "--format", "{{json .Server}}")
    if server and "Podman" not in server:
        return "docker"
    if _output("podman", "version"):
        return "podman"
    raise UserError(
        "neither Docker nor Podman responds", "install one of them, or start its service", "images.no_engine"
    )


def _flags(command: str, step: str) -> list[str]:
    """Return the user's additional flags for Podman's `build` or `push`."""
    return shlex.split(os.environ.get(f"PODMAN_{step.upper()}_FLAGS", "")) if command == "podman" else []


def uses_gpu(phase: str) -> bool:
    """Return whether the placement file gives a phase an accelerator.

    Raises:
        UserError: as in `placement`.
    """
    resources = placement().phases.get(phase)
    return bool(resources and resources.accelerator)


def local_image(phase: str, gpu: str = "") -> str:
    """Return the local reference of a phase's image: `image(phase)`, with a suffix for CUDA."""
    return f"{image(phase)}-cuda-{gpu}" if gpu and uses_gpu(phase) else image(phase)


def _run(phase: str, command: list[str]) -> None:
    """Run a command of the engine and write its output to a log file.

    Raises:
        UserError: `images.build_failed`, with the last line of the output and the path of the log.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{command[1]}-{phase}.log"
    with log.open("w", encoding="utf-8") as file:
        result = subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    if result.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = lines[-1] if lines else f"exit code {result.returncode}"
        raise UserError(
            f"{command[0]} {command[1]} of {phase} failed ({last})",
            f"read the complete output in {log}",
            "images.build_failed",
            phase=phase,
        )


def _labels() -> list[str]:
    """Return the flags that label an image with the commit and repository that it was built from."""
    revision = _output("git", "-C", str(ROOT), "rev-parse", "HEAD") or "unknown"
    if _output("git", "-C", str(ROOT), "status", "--porcelain"):
        revision += "-dirty"
    source = _output("git", "-C", str(ROOT), "config", "--get", "remote.origin.url") or "unknown"
    source = re.sub(r"//[^/@]*@", "//", source)  # the address of a remote may contain a password
    labels = {"revision": revision, "source": source}
    return [f"--label=org.opencontainers.image.{name}={value}" for name, value in labels.items()]


def _image_exists(command: str, reference: str) -> bool:
    """Return whether the engine has an image."""
    return _output(command, "image", "inspect", "--format", "{{.Id}}", reference) is not None


def python_image() -> str:
    """Return the image that all others start from, with the digest that docker/Dockerfile may name."""
    text = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    return text.partition("ARG PYTHON_IMAGE=")[2].partition("\n")[0].strip()


def groups(phase: str) -> list[str]:
    """Return the dependency groups of a phase, which its Dockerfile lists.

    Raises:
        UserError: `images.no_groups`.
    """
    match = re.search(r"^# groups: (.+)$", (ROOT / "components" / phase / "Dockerfile").read_text(), re.MULTILINE)
    if not match:
        raise UserError(
            f"components/{phase}/Dockerfile lists no dependency groups",
            "add a line `# groups: kfp …`",
            "images.no_groups",
            phase=phase,
        )
    return match[1].split()


def _build_base(command: str, phase: str, gpu: str, start: str) -> str:
    """Build the base image of a phase if it is missing, and return its reference."""
    names = [f"cuda-{gpu}" if gpu and name == "tensorflow" else name for name in groups(phase)]
    digest = hashlib.sha256(f"{start} {names}".encode())
    for name in BASE:  # uv.lock changes with every change of a dependency in pyproject.toml
        digest.update((ROOT / name).read_bytes())
    target = "gpu" if gpu else "cpu"
    reference = f"counterweight/base:{'-'.join((target, *names, digest.hexdigest()[:16]))}"
    if not _image_exists(command, reference):
        arguments = [
            f"PYTHON_IMAGE={start}",
            f"DEPENDENCIES={' '.join(names)}",
            *([f"LIBRARY={gpu}"] if gpu else []),
        ]
        flags = [*_flags(command, "build"), *(f"--build-arg={argument}" for argument in arguments)]
        flags += [f"--target={target}", f"--tag={reference}", "--file=docker/Dockerfile"]
        _run("-".join(("base", target, *names)), [command, "build", *flags, "."])
    return reference


def build(phases: list[str], gpu: str = "", start: str = "") -> None:
    """Build the images that do not exist yet.

    Args:
        phases: entries of `PHASES`.
        gpu: entry of `LIBRARIES`, for the phases that use a GPU; empty for none.
        start: the image that the base images start from; empty for the one that docker/Dockerfile names.

    Raises:
        UserError: `images.no_engine` or `images.build_failed`.
    """
    command = engine()
    labels = _labels()
    for phase in phases:
        reference = local_image(phase, gpu)
        if _image_exists(command, reference):
            print(f"{reference}: up to date", flush=True)
            continue
        started = time.monotonic()
        base = _build_base(command, phase, gpu if uses_gpu(phase) else "", start or python_image())
        flags = [*_flags(command, "build"), f"--build-arg=BASE={base}", *labels, f"--tag={reference}"]
        _run(phase, [command, "build", *flags, f"--file=components/{phase}/Dockerfile", "."])
        size = int(_output(command, "image", "inspect", "--format", "{{.Size}}", reference) or 0)
        print(f"{reference}: {size / 1e6:,.0f} MB, built in {duration(time.monotonic() - started)}", flush=True)


def _read_digests() -> dict[str, dict[str, str]]:
    """Return the pushed images: phase → `content` (hash) and `image` (reference with digest).

    Raises:
        UserError: `images.invalid_digests`.
    """
    if not DIGESTS.exists():
        return {}
    try:
        entries: dict[str, dict[str, str]] = json.loads(DIGESTS.read_text(encoding="utf-8"))
        return {phase: {key: entry[key] for key in ("content", "image")} for phase, entry in entries.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{DIGESTS} is not readable", "delete it, and push the images again", "images.invalid_digests"
        ) from error


def push(registry: str, phases: list[str], gpu: str = "") -> None:
    """Push built images and record their digests in `docker/digests.json`, which a failure leaves unchanged.

    Args:
        registry: host[:port]/path.
        phases: entries of `PHASES`; the recorded digests of other phases stay.
        gpu: as for `build`.

    Raises:
        UserError: `images.invalid_registry`, `images.no_digest`, or `images.build_failed` if the push fails.
    """
    if not _REGISTRY.fullmatch(registry):
        raise UserError(f"REGISTRY is {registry!r}", "use host[:port]/path in lower case", "images.invalid_registry")
    command = engine()
    pushed: dict[str, dict[str, str]] = {}
    for phase in phases:
        local = local_image(phase, gpu)
        name = f"{registry}/{repository(phase)}"
        remote = f"{name}:{local.rpartition(':')[2]}"
        _run(phase, [command, "tag", local, remote])
        with tempfile.NamedTemporaryFile("r", prefix="counterweight-") as digest_file:
            # Podman compresses the layers for the push, so the digest in its local store differs.
            digest_flags = [f"--digestfile={digest_file.name}"] if command == "podman" else []
            _run(phase, [command, "push", *_flags(command, "push"), *digest_flags, remote])
            digest = digest_file.read().strip()
        if command == "docker":
            known = _output(command, "image", "inspect", "--format", "{{json .RepoDigests}}", remote)
            digest = next((d.partition("@")[2] for d in json.loads(known or "[]") if d.startswith(f"{name}@")), "")
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
            raise UserError(f"{command} did not report the digest of {remote}", "push it again", "images.no_digest")
        pushed[phase] = {"content": content(phase), "image": f"{name}@{digest}"}
        print(pushed[phase]["image"], flush=True)
    write_text(DIGESTS, json.dumps(dict(sorted((_read_digests() | pushed).items())), indent=1) + "\n")


def pinned() -> dict[str, str]:
    """Return the pushed image, `registry/…@sha256:…`, for each `image(phase)`; empty if no images were pushed.

    Raises:
        UserError: `images.stale_digests`: some images were pushed, but not those of the current code of each phase.
    """
    recorded = _read_digests()
    stale = [phase for phase in PHASES if recorded and recorded.get(phase, {}).get("content") != content(phase)]
    if stale:
        raise UserError(
            f"docker/digests.json has no image of the current code of {', '.join(stale)}",
            "run `make push REGISTRY=…` again, or delete the file",
            "images.stale_digests",
            phases=list(stale),
        )
    return {image(phase): recorded[phase]["image"] for phase in PHASES if recorded}


def _choices(given: dict[str, str], name: str, allowed: tuple[str, ...] | list[str]) -> list[str]:
    """Return the comma-separated values of an option.

    Raises:
        UserError: `images.unknown_choice`.
    """
    words = [word.strip() for word in given.get(name, "").split(",") if word.strip()]
    for word in words:
        if word not in allowed:
            raise UserError(
                f"{name} has the unknown value {word!r}",
                f"choose from {', '.join(allowed)}",
                "images.unknown_choice",
                name=name,
            )
    return words


def run(step: str, words: list[str]) -> None:
    """Run the command.

    Args:
        step: `build` or `push`.
        words: options as `NAME=value`.

    Raises:
        UserError: an option is invalid, or a step failed.
    """
    if step not in ("build", "push"):
        raise UserError("no action given", "choose build or push", "images.no_action")
    given = parameters.assignments(words)
    for name in given:
        if name not in OPTIONS:
            raise UserError(
                f"unknown option {name}", f"choose from {', '.join(OPTIONS)}", "images.unknown_option", name=name
            )
    if file := given.get("PLACEMENT"):
        os.environ[FILE_VARIABLE] = file
        placement.cache_clear()
    phases = _choices(given, "PHASES", PHASES) or PHASES
    gpu = "".join(_choices(given, "GPU", LIBRARIES)[:1])
    if step == "push" and not given.get("REGISTRY"):
        raise UserError("REGISTRY is missing", "run `make push REGISTRY=host/path`", "images.no_registry")
    build(phases, gpu, given.get("PYTHON_IMAGE", ""))
    if step == "push":
        push(given["REGISTRY"], phases, gpu)


if __name__ == "__main__":
    sys.exit(run_command(lambda: run("".join(sys.argv[1:2]), parameters.words(sys.argv[2:]))))
