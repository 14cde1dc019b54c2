"""Build the images of the phases, counterweight/<phase>:<hash of its content>, with Docker or Podman.

If the base image that docker/Dockerfile names by digest is neither here nor can be pulled, `images` starts from a local
one of its name and tag. The environment variables PODMAN_BUILD_FLAGS and PODMAN_PUSH_FLAGS are passed to Podman.
"""

import contextlib
import hashlib
import json
import os
import re
import shlex
import subprocess
import tempfile
import time
from typing import TextIO

from components.container_images import BASE, ROOT, content, image, repository
from components.placement import placement
from components.shared.errors import UserError
from components.shared.files import write_text
from components.shared.log import duration
from counterweight import parameters

DIGESTS = ROOT / "docker" / "digests.json"
LOGS = ROOT / "build" / "images"
PHASES = sorted(path.parent.name for path in (ROOT / "components").glob("*/Dockerfile"))
LIBRARIES = ("tensorflow", "jax")
START_LIMIT_S = 300
"""How long the engine may take to pull the image that all others start from."""
START_LABEL = "org.opencontainers.image.base.name"
"""Label of an image: the one that all others start from."""
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


def explain_missing(phases: list[str]) -> UserError:
    """Return the error for phases without an image of their current code."""
    return UserError(
        f"no image of the current code of {', '.join(phases)} exists",
        "run `make images`",
        "containers.no_image",
        phases=phases,
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


def _run(phase: str, command: list[str], limit_s: float | None = None) -> None:
    """Run a command of the engine and write its output to a log file.

    Raises:
        UserError: `images.build_failed`, with the last line of the output and the path of the log.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{command[1]}-{phase}.log"
    with log.open("w", encoding="utf-8") as file:
        try:
            code: int | None = subprocess.run(
                command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=limit_s
            ).returncode
        except subprocess.TimeoutExpired:
            code = None
    if code == 0:
        return
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    reason = lines[-1] if lines else f"exit code {code}"
    if code is None:
        reason = f"not finished after {limit_s:.0f} s"
    raise UserError(
        f"{command[0]} {command[1]} of {phase} failed ({reason})",
        f"read the complete output in {log}",
        "images.build_failed",
        phase=phase,
        reason=reason,
    )


def _labels(start: str) -> list[str]:
    """Return the flags that label an image with commit, repository, and the image that all others start from."""
    revision = _output("git", "-C", str(ROOT), "rev-parse", "HEAD") or "unknown"
    if _output("git", "-C", str(ROOT), "status", "--porcelain"):
        revision += "-dirty"
    source = _output("git", "-C", str(ROOT), "config", "--get", "remote.origin.url") or "unknown"
    source = re.sub(r"//[^/@]*@", "//", source)  # the address of a remote may contain a password
    labels = {"revision": revision, "source": source}
    return [
        f"--label={START_LABEL}={start}",
        *(f"--label=org.opencontainers.image.{name}={value}" for name, value in labels.items()),
    ]


def _image_exists(command: str, reference: str) -> bool:
    """Return whether the engine has an image."""
    return _output(command, "image", "inspect", "--format", "{{.Id}}", reference) is not None


def _starts_from(command: str, reference: str, start: str) -> bool:
    """Return whether an image exists and was built from another one."""
    form = f'{{{{index .Config.Labels "{START_LABEL}"}}}}'
    return _output(command, "image", "inspect", "--format", form, reference) == start


def python_image() -> str:
    """Return the image that all others start from, which docker/Dockerfile names."""
    text = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    return text.partition("ARG PYTHON_IMAGE=")[2].partition("\n")[0].strip()


def available_start(command: str, pinned: str, must_be_pinned: bool = False) -> str:
    """Return the pinned image that all others start from, or else a local one with the same name and tag.

    The engine answers whether it can build from the pinned one: only it knows its credentials and mirrors, and whether
    flags such as `--pull=never` forbid it to ask a registry.

    Args:
        command: `docker` or `podman`.
        pinned: name, tag and digest.
        must_be_pinned: whether to refuse the local one.

    Raises:
        UserError: `images.no_base` or `images.base_not_pinned`.
    """
    flags = [*_flags(command, "build"), f"--build-arg=PYTHON_IMAGE={pinned}", "--target=start"]
    # The tag only keeps Docker from leaving an image without a name.
    flags += ["--tag=counterweight/base:start", "--file=docker/Dockerfile"]
    try:
        _run("start", [command, "build", *flags, "."], START_LIMIT_S)
        return pinned
    except UserError as error:
        reason = error.fields["reason"]
    name = pinned.partition("@")[0]
    if not _image_exists(command, name):
        raise UserError(
            f"{command} neither has the base image {pinned} nor can pull it ({reason})",
            "check the network, or give another image: PYTHON_IMAGE=name",
            "images.no_base",
            image=pinned,
        )
    if must_be_pinned:
        raise UserError(
            f"the base image {pinned} cannot be pulled ({reason}), and the local {name} may be another one",
            f"push from a machine that can pull it, or accept the local one: PYTHON_IMAGE={name}",
            "images.base_not_pinned",
            image=pinned,
        )
    print(f"warning: images start from the local {name}, not from the pinned image, which cannot be pulled", flush=True)
    return name


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


def build(phases: list[str], gpu: str = "", start: str = "", must_be_pinned: bool = False) -> None:
    """Build the images that do not exist yet, or start from another image.

    Args:
        phases: entries of `PHASES`.
        gpu: entry of `LIBRARIES`, for the phases that use a GPU; empty for none.
        start: the image that the base images start from; empty for the one that docker/Dockerfile names, or a local one
            of its name.
        must_be_pinned: whether to refuse the local one.

    Raises:
        UserError: `images.no_engine`, `images.no_base`, `images.base_not_pinned` or `images.build_failed`.
    """
    command = engine()
    if not start:
        start = python_image()
        if not all(_starts_from(command, local_image(phase, gpu), start) for phase in phases):
            start = available_start(command, start, must_be_pinned)
    labels = _labels(start)
    for phase in phases:
        reference = local_image(phase, gpu)
        if _starts_from(command, reference, start):
            print(f"{reference}: up to date", flush=True)
            continue
        started = time.monotonic()
        base = _build_base(command, phase, gpu if uses_gpu(phase) else "", start)
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
            "docker/digests.json is not readable", "delete it, and push the images again", "images.invalid_digests"
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


def choose_phases(given: dict[str, str]) -> tuple[list[str], str]:
    """Return the phases of the options, and the library that uses GPUs (empty for none).

    Raises:
        UserError: `images.unknown_choice`.
    """
    parameters.use_placement(given)
    phases = _choices(given, "PHASES", PHASES) or PHASES
    return phases, "".join(_choices(given, "GPU", LIBRARIES)[:1])


def run(words: list[str], out: TextIO) -> None:
    """Run the command."""
    given = parameters.assignments(words)
    phases, gpu = choose_phases(given)
    with contextlib.redirect_stdout(out):
        build(phases, gpu, given.get("PYTHON_IMAGE", ""))
