"""The phases' images: `python -m counterweight.build_images build|push [NAME=value …]`.

    build   each phase's image, as counterweight/<phase>:<hash of its content>, with Docker or Podman
    push    builds what is missing, pushes to REGISTRY, and writes docker/digests.json, which `compile` reads

    PHASES        with commas between them (default: all)
    GPU           tensorflow or jax: the phases that ask for a GPU get CUDA (default: none)
    REGISTRY      where to push to: host[:port]/path
    PYTHON_IMAGE  what the bases are built on (default python:3.11-slim)

PODMAN_BUILD_FLAGS and PODMAN_PUSH_FLAGS, in the environment, are handed to Podman. Exit codes: 0, or 2 with a sentence.
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
from typing import Any

from components.container_images import BASE, ROOT, content, image, repository
from components.shared.errors import UserError
from components.shared.files import write_text
from components.shared.log import duration
from counterweight import parameters
from counterweight.exit_codes import run_command

DIGESTS = ROOT / "docker" / "digests.json"
LOGS = ROOT / "build" / "images"
PHASES = sorted(path.parent.name for path in (ROOT / "components").glob("*/Dockerfile"))
GPU_PHASES = ("train_gan",)
LIBRARIES = ("tensorflow", "jax")
NAMES = ("PHASES", "GPU", "REGISTRY", "PYTHON_IMAGE")
_REGISTRY = re.compile(r"[a-z0-9][a-z0-9.-]*(:\d+)?(/[a-z0-9._-]+)*")


def _output(*command: str) -> str | None:
    """What a command prints; None where it fails or isn't there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def engine() -> str:
    """`docker` or `podman`: the command whose engine answers. Docker's command may well speak to Podman.

    Raises:
        UserError: neither does.
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
    """What the user adds to Podman's `build` or `push`."""
    return shlex.split(os.environ.get(f"PODMAN_{step.upper()}_FLAGS", "")) if command == "podman" else []


def local_image(phase: str, gpu: str = "") -> str:
    """The reference under which `build` keeps a phase's image: `image(phase)`, and more for a GPU's."""
    return f"{image(phase)}-cuda-{gpu}" if gpu and phase in GPU_PHASES else image(phase)


def _run(phase: str, command: list[str]) -> None:
    """Runs a command of the engine's with its output in a log.

    Raises:
        UserError: it failed; with its last line and the log's name.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{command[1]}-{phase}.log"
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    if done.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = lines[-1] if lines else f"exit code {done.returncode}"
        raise UserError(
            f"{command[0]} {command[1]} of {phase} failed ({last})",
            f"read the complete output in {log}",
            "images.build_failed",
            phase=phase,
        )


def _labels() -> list[str]:
    """Flags that say what an image was built from. A remote's address may hold a password: it is left out."""
    revision = _output("git", "-C", str(ROOT), "rev-parse", "HEAD") or "unknown"
    if _output("git", "-C", str(ROOT), "status", "--porcelain"):
        revision += "-dirty"
    source = _output("git", "-C", str(ROOT), "config", "--get", "remote.origin.url") or "unknown"
    facts = {"revision": revision, "source": re.sub(r"//[^/@]*@", "//", source)}
    return [f"--label=org.opencontainers.image.{name}={value}" for name, value in facts.items()]


def _there(command: str, reference: str) -> bool:
    """Whether an image is in the engine's store."""
    return _output(command, "image", "inspect", "--format", "{{.Id}}", reference) is not None


def groups(phase: str) -> list[str]:
    """The dependency groups that a phase's Dockerfile asks for."""
    found = re.search(r"^# groups: (.+)$", (ROOT / "components" / phase / "Dockerfile").read_text(), re.MULTILINE)
    if not found:
        raise UserError(
            f"components/{phase}/Dockerfile lists no dependency groups",
            "add a line `# groups: kfp …`",
            "images.no_groups",
            phase=phase,
        )
    return found[1].split()


def _base(command: str, phase: str, gpu: str, python_image: str) -> str:
    """Builds what a phase's image is built on, where it is missing, and returns its name."""
    names = [f"cuda-{gpu}" if gpu and name == "tensorflow" else name for name in groups(phase)]
    digest = hashlib.sha256(f"{python_image} {names}".encode())
    for name in (*BASE, "pyproject.toml"):
        digest.update((ROOT / name).read_bytes())
    target = "gpu" if gpu else "cpu"
    reference = f"counterweight/base:{'-'.join((target, *names, digest.hexdigest()[:16]))}"
    if not _there(command, reference):
        arguments = [
            f"PYTHON_IMAGE={python_image}",
            f"DEPENDENCIES={' '.join(names)}",
            *([f"LIBRARY={gpu}"] if gpu else []),
        ]
        flags = [*_flags(command, "build"), *(f"--build-arg={argument}" for argument in arguments)]
        named = [f"--target={target}", f"--tag={reference}", "--file=docker/Dockerfile"]
        _run("-".join(("base", target, *names)), [command, "build", *flags, *named, "."])
    return reference


def build(phases: list[str], gpu: str = "", python_image: str = "python:3.11-slim") -> None:
    """Builds the images that are not there yet.

    Args:
        phases: of `PHASES`.
        gpu: of `LIBRARIES`, for the phases in `GPU_PHASES`, or empty.
        python_image: what the bases are built on.

    Raises:
        UserError: no engine answers, or a build failed.
    """
    command = engine()
    labels = _labels()
    for phase in phases:
        reference = local_image(phase, gpu)
        if _there(command, reference):
            print(f"{reference} is there", flush=True)
            continue
        begun = time.monotonic()
        base = _base(command, phase, gpu if phase in GPU_PHASES else "", python_image)
        flags = [*_flags(command, "build"), f"--build-arg=BASE={base}", *labels, f"--tag={reference}"]
        _run(phase, [command, "build", *flags, f"--file=components/{phase}/Dockerfile", "."])
        size = int(_output(command, "image", "inspect", "--format", "{{.Size}}", reference) or 0)
        print(f"{reference}: {size / 1e6:,.0f} MB, built in {duration(time.monotonic() - begun)}", flush=True)


def _recorded() -> dict[str, dict[str, str]]:
    """What was pushed: phase → `content` (hash) and `image` (with its digest)."""
    if not DIGESTS.exists():
        return {}
    try:
        found: dict[str, dict[str, str]] = json.loads(DIGESTS.read_text(encoding="utf-8"))
        return {phase: {key: entry[key] for key in ("content", "image")} for phase, entry in found.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{DIGESTS} is not readable", "delete it, and push the images again", "images.invalid_digests"
        ) from error


def push(registry: str, phases: list[str], gpu: str = "") -> None:
    """Pushes images that were built, and records their digests in `docker/digests.json`, which is whole or unchanged.

    Args:
        registry: host[:port]/path.
        phases: of `PHASES`; what was recorded of others stays.
        gpu: as for `build`.

    Raises:
        UserError: the registry does not take an image.
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
            # Podman compresses what it sends: the digest in its own store is another.
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
    write_text(DIGESTS, json.dumps(dict(sorted((_recorded() | pushed).items())), indent=1) + "\n")


def pinned() -> dict[str, str]:
    """What a compiled pipeline is to name in place of each `image(phase)`: `registry/…@sha256:…` where images were
    pushed, nothing where none were.

    Raises:
        UserError: an image was pushed of other code than this, or not at all while others were.
    """
    recorded = _recorded()
    stale = [phase for phase in PHASES if recorded and recorded.get(phase, {}).get("content") != content(phase)]
    if stale:
        raise UserError(
            f"docker/digests.json has no image of the current code of {', '.join(stale)}",
            "run `make push REGISTRY=…` again, or delete the file",
            "images.stale_digests",
            phases=list(stale),
        )
    return {image(phase): recorded[phase]["image"] for phase in PHASES if recorded}


def _chosen(given: dict[str, str], name: str, choices: tuple[str, ...] | list[str]) -> list[str]:
    """The words of a variable, each of which must be one of the choices."""
    words = [word.strip() for word in given.get(name, "").split(",") if word.strip()]
    for word in words:
        if word not in choices:
            raise UserError(
                f"{name} has the unknown value {word!r}",
                f"choose from {', '.join(choices)}",
                "images.unknown_choice",
                name=name,
            )
    return words


def run(step: str, words: list[str]) -> None:
    """Does what the command asks for.

    Raises:
        UserError: something can't be used or failed.
    """
    if step not in ("build", "push"):
        raise UserError("no action given", "choose build or push", "images.no_action")
    given = parameters.assignments(words)
    for name in given:
        if name not in NAMES:
            raise UserError(
                f"unknown option {name}", f"choose from {', '.join(NAMES)}", "images.unknown_option", name=name
            )
    phases = _chosen(given, "PHASES", PHASES) or PHASES
    gpu = "".join(_chosen(given, "GPU", LIBRARIES)[:1])
    if step == "push" and not given.get("REGISTRY"):
        raise UserError("REGISTRY is missing", "run `make push REGISTRY=host/path`", "images.no_registry")
    more: dict[str, Any] = {"python_image": given["PYTHON_IMAGE"]} if given.get("PYTHON_IMAGE") else {}
    build(phases, gpu, **more)
    if step == "push":
        push(given["REGISTRY"], phases, gpu)


if __name__ == "__main__":
    sys.exit(run_command(lambda: run("".join(sys.argv[1:2]), parameters.words(sys.argv[2:]))))
