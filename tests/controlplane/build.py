"""Builds a real Kubernetes control plane from Go modules into a cache outside of the clone.

`python -m tests.controlplane.build` prints the folder that holds the programs. The folder is keyed by a hash
of the go.mod and go.sum files and of our own Go sources, so another version never meets an old binary. The first
build takes five to ten minutes on two cores; later ones find the folder and return at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MODULES: Final = Path(__file__).parent / "go"
KUBERNETES_VERSION: Final = "v1.36.3"
BUILD_TIMEOUT_SECONDS: Final = 40 * 60
FILTER_CHECK: Final = "filtercheck"
"""Our own program, of the same Go module: kube-scheduler's filters without a control plane around them."""
STAGE_FOLDERS: Final = ("node/fast", "node/heartbeat-with-lease", "pod/fast")
"""What kwok does with nodes and pods; without these files it stops with "no stages found"."""

_VERSION: Final = "k8s.io/component-base/version"
_CLIENT_VERSION: Final = "k8s.io/client-go/pkg/version"


class BuildError(RuntimeError):
    """A program of the control plane cannot be built here; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class GoModule:
    """One folder below `go/` and the programs that are built from it: name of the binary -> Go package."""

    folder: str
    packages: dict[str, str]
    ldflags: str = "-s -w"


def _version_flags() -> str:
    """Return the linker flags that kubernetes' own build sets; without them every program says v0.0.0."""
    major, minor, _ = KUBERNETES_VERSION.removeprefix("v").split(".")
    values = {
        "gitVersion": KUBERNETES_VERSION,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
    }
    settings = [
        f"-X {package}.{key}={value}" for package in (_VERSION, _CLIENT_VERSION) for key, value in values.items()
    ]
    return " ".join(["-s", "-w", *settings])


GO_MODULES: Final = (
    GoModule("etcd", {"etcd": "go.etcd.io/etcd/server/v3"}),
    GoModule(
        "kubernetes",
        {
            name: f"k8s.io/kubernetes/cmd/{name}"
            for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
        }
        | {FILTER_CHECK: f"./{FILTER_CHECK}"},
        _version_flags(),
    ),
    GoModule("kwok", {"kwok": "sigs.k8s.io/kwok/cmd/kwok"}),
)
PROGRAMS: Final = tuple(name for module in GO_MODULES for name in module.packages)


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with every program of the control plane, and kwok's stage files in `stages/`."""

    folder: Path

    def path(self, program: str) -> Path:
        """Return the path of one of `PROGRAMS`."""
        return self.folder / program

    def stages(self) -> tuple[Path, ...]:
        """Return kwok's stage files."""
        return tuple(sorted((self.folder / "stages").glob("*.yaml")))

    def complete(self) -> bool:
        """Tell whether nothing is missing; a link into a folder of ready binaries may have gone."""
        return bool(self.stages()) and all(self.path(program).is_file() for program in PROGRAMS)


def cache_folder() -> Path:
    """Return where built programs are kept: $KINEMA_CACHE, $XDG_CACHE_HOME/kinema or ~/.cache/kinema."""
    if own := os.environ.get("KINEMA_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "kinema"


def find() -> Binaries | None:
    """Return the programs where they are complete already, without building."""
    binaries = Binaries(_folder(_ready_assets()))
    return binaries if binaries.complete() else None


def unavailable() -> str | None:
    """Return why the control plane can be neither found nor built here, or None where it can."""
    if find() is not None or shutil.which("go") is not None:
        return None
    return (
        "the real control plane needs Go 1.26 or newer on the PATH (it is built once, into "
        f"{cache_folder()}); install it from https://go.dev/dl/"
    )


def build() -> Binaries:
    """Return the programs, built first where they are missing; a second caller waits for the first.

    Raises:
        BuildError: Go is missing, or a program does not compile.
    """
    assets = _ready_assets()
    folder = _folder(assets)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock")):
        binaries = Binaries(folder)
        if binaries.complete():
            return binaries
        if reason := unavailable():
            raise BuildError(reason)
        # Only a complete folder gets the final name; what a killed build left is removed by the next one.
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        _fill(unfinished, assets)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
        return binaries


def _ready_assets() -> dict[str, Path]:
    """Return the programs found in $KUBEBUILDER_ASSETS (usually etcd, kube-apiserver and kubectl)."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if not assets:
        return {}
    found = {program: Path(assets).resolve() / program for program in PROGRAMS}
    return {program: path for program, path in found.items() if path.is_file()}


def _folder(assets: dict[str, Path]) -> Path:
    digest = hashlib.sha256()
    inputs = [MODULES / module.folder / name for module in GO_MODULES for name in ("go.mod", "go.sum")]
    inputs += sorted(MODULES.glob("*/*/*.go"))
    for content in [path.read_bytes() for path in inputs]:
        digest.update(len(content).to_bytes(8, "big") + content)
    recipe = [repr(GO_MODULES), platform.system(), platform.machine(), repr(sorted(assets.items()))]
    digest.update("\n".join(recipe).encode())
    return cache_folder() / "controlplane" / digest.hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another run builds the control plane, waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fill(target: Path, assets: dict[str, Path]) -> None:
    for module in GO_MODULES:
        missing = {name: package for name, package in module.packages.items() if name not in assets}
        for name in module.packages.keys() - missing.keys():
            (target / name).symlink_to(assets[name])
        if missing:
            _build_module(module, missing, target)
    _copy_stages(target)


def _copy_stages(target: Path) -> None:
    kwok = Path(_go(["list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok"], MODULES / "kwok").strip())
    stages = target / "stages"
    stages.mkdir()
    for folder in STAGE_FOLDERS:
        for source in sorted((kwok / "kustomize" / "stage" / folder).glob("*.yaml")):
            if source.name != "kustomization.yaml":
                (stages / source.name).write_bytes(source.read_bytes())


def _build_module(module: GoModule, packages: dict[str, str], target: Path) -> None:
    started = time.monotonic()
    _say(f"building {', '.join(packages)} (minutes on first use)")
    # With several packages -o names a folder and each binary gets its package's last element; a single
    # package such as …/server/v3 is called by its module's version rules, so it gets its file name here.
    output = str(target) + os.sep if len(packages) > 1 else str(target / next(iter(packages)))
    flags = ["-trimpath", "-buildvcs=false", f"-ldflags={module.ldflags}"]
    _go(["build", *flags, "-o", output, *packages.values()], MODULES / module.folder)
    _say(f"built {', '.join(packages)} in {time.monotonic() - started:.0f} s")


def _go(arguments: list[str], folder: Path) -> str:
    # GOFLAGS and a workspace of the caller must not change what is built; without cgo no C compiler is needed.
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
    command = ["nice", "go", *arguments] if shutil.which("nice") else ["go", *arguments]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_SECONDS,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        tail = "\n".join(error.stderr.splitlines()[-20:])
        raise BuildError(f"`go {' '.join(arguments)}` failed in {folder}:\n{tail}") from error
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"`go {arguments[0]}` took longer than {BUILD_TIMEOUT_SECONDS} s in {folder}") from error
    return done.stdout


def _say(message: str) -> None:
    sys.stderr.write(f"controlplane: {message}\n")
    sys.stderr.flush()


def main() -> int:
    """Build what is missing and print the folder; exit code 1 with a reason where that is impossible."""
    try:
        sys.stdout.write(f"{build().folder}\n")
    except BuildError as error:
        _say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
