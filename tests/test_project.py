"""What holds the project together beside its code: locks, commands, image, pages."""

from __future__ import annotations

import ast
import configparser
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from extender.settings import ExtenderSettings
from planner import settings
from tools.document_settings import field_docstrings, settings_page

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "requirements-dev.lock")
PAGES = ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def pins(lock: str) -> dict[str, str]:
    """Return the pinned requirement lines of a lock (name, version and marker), with their hashes."""
    entries = read(lock).replace("\\\n", " ").splitlines()
    return {entry.split("--hash")[0].strip(): entry for entry in entries if entry.strip()}


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", read("Makefile"), re.MULTILINE))


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_carries_a_hash(lock: str) -> None:
    assert len(pins(lock)) > 20
    for pin, entry in pins(lock).items():
        assert re.match(r"[a-z0-9.-]+==\S+", pin), pin
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), pin


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_names_no_registry_and_no_path(lock: str) -> None:
    # Nothing but pins and hashes: no option such as --index-url, no URL, no file.
    assert not re.findall(r"^(?![a-z0-9.-]+==|    --hash=sha256:).+$", read(lock), re.MULTILINE)
    assert not re.findall(r"[/@]", read(lock))


def test_development_lock_holds_every_pin_of_the_runtime_lock() -> None:
    assert pins(LOCKS[0]).keys() <= pins(LOCKS[1]).keys()


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_pins_what_builds_the_project(lock: str) -> None:
    # tools/install builds without an index, with the setuptools of the lock.
    assert any(pin.startswith("setuptools==") for pin in pins(lock))


def test_every_dependency_has_a_reason() -> None:
    lines = [line.strip() for line in read("pyproject.toml").splitlines()]
    declared = [
        *PYPROJECT["project"]["dependencies"],
        *(name for group in PYPROJECT["project"]["optional-dependencies"].values() for name in group),
        *(name for group in PYPROJECT["dependency-groups"].values() for name in group),
    ]
    assert len(declared) > 15
    for requirement in declared:
        found = [line for line in lines if line.startswith(f'"{requirement}",')]
        assert found, requirement
        assert re.search(r'",\s+# \w.{10,}', found[0]), f"{requirement} has no reason"


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_the_pages_exist(page: str) -> None:
    for target in re.findall(r"(?:^|`)make ([a-z][a-z-]*)", read(page), re.MULTILINE):
        assert target in make_targets(), f"{page}: make {target}"


def test_readme_shows_the_two_commands() -> None:
    assert {"make demo", "make test"} <= set(read("README.md").splitlines())


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", read(page)):
        if "://" not in link:
            assert ((ROOT / page).parent / link).exists(), f"{page}: {link}"


def test_architecture_page_says_every_border_that_is_checked() -> None:
    config = configparser.ConfigParser()
    config.read_string(read(".importlinter"))
    names = [config[section]["name"] for section in config.sections() if ":" in section]
    assert len(names) >= 8
    for name in names:
        assert name in read("docs/architecture.md")


def test_page_of_settings_is_what_the_docstrings_say() -> None:
    assert read("docs/settings.md") == settings_page(), "run `make docs`"


def test_every_setting_is_documented() -> None:
    kinds = [
        kind
        for name, kind in vars(settings).items()
        if isinstance(kind, type) and name.endswith("Settings") and kind.__module__ == settings.__name__
    ]
    assert len(kinds) >= 8
    for kind in (*kinds, ExtenderSettings):
        for name, text in field_docstrings(kind).items():
            if name not in settings.Settings.__dataclass_fields__ or kind is not settings.Settings or text:
                assert text, f"{kind.__name__}.{name}"


def test_extender_loads_with_its_own_dependencies_alone() -> None:
    """Import the extender where only the base dependencies and what they need can be found."""
    script = f"""
import sys

class Border:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        own = top in sys.stdlib_module_names or top.startswith("_sysconfigdata")
        if not own and top not in {sorted(_base_modules())!r}:
            raise ModuleNotFoundError(f"{{name}} is no dependency of the extender", name=name)

sys.meta_path.insert(0, Border())
import extender.app
print(*sorted(name for name in sys.modules if name.split(".")[0] in ("planner", "simulator", "cvxpy", "numpy")))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["planner", "planner.labels"]


def _base_modules() -> set[str]:
    """Return the top-level modules of the base dependencies, of what they require, and of the project."""
    owners: dict[str, set[str]] = {}
    for module, distributions in metadata.packages_distributions().items():
        for distribution in distributions:
            owners.setdefault(_normal(distribution), set()).add(module)
    waiting = [_normal(name) for name in PYPROJECT["project"]["dependencies"]]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            try:
                required = metadata.requires(name) or ()
            except metadata.PackageNotFoundError:  # for another platform or an older Python
                required = ()
            waiting += [_normal(line) for line in required if "extra ==" not in line]
    return {"extender", "planner"}.union(*(owners.get(name, set()) for name in seen))


def _normal(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def test_extender_code_imports_only_labels_from_the_planner() -> None:
    for path in (ROOT / "extender").glob("*.py"):
        for found in ast.walk(ast.parse(path.read_text())):
            if isinstance(found, ast.ImportFrom) and (found.module or "").split(".")[0] in ("planner", "simulator"):
                names = {f"{found.module}.{alias.name}" for alias in found.names}
                assert found.module == "planner.labels" or names == {"planner.labels"}, path.name


def test_importing_the_planner_package_imports_nothing() -> None:
    assert read("planner/__init__.py") == ""


def test_image_runs_as_a_numeric_user_that_is_not_root() -> None:
    users = re.findall(r"^USER (\S+)$", read("Dockerfile"), re.MULTILINE)
    assert users
    assert all(re.fullmatch(r"[1-9]\d*:[1-9]\d*", user) for user in users)


def test_both_stages_of_the_image_have_one_pinned_base() -> None:
    bases = re.findall(r"^FROM (\S+)", read("Dockerfile"), re.MULTILINE)
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.1[1-3][\w.]*-slim-\w+(@sha256:[0-9a-f]{64})?", bases[0])


def test_install_steps_of_the_image_work(tmp_path: Path) -> None:
    """Run the RUN lines of the Dockerfile's first stage on exactly the files that .dockerignore lets through."""
    source, target = tmp_path / "source", tmp_path / "kinema"
    source.mkdir()
    allowed = [line[1:] for line in read(".dockerignore").splitlines() if line.startswith("!")]
    for name in allowed:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / name, source / name)
    build = read("Dockerfile").split("\nFROM ")[1]
    steps = [line.removeprefix("RUN ") for line in build.splitlines() if line.startswith("RUN ")]
    assert len(steps) == 2

    for step in steps:
        command = step.replace("/opt/kinema", str(target))
        assert command != step
        done = subprocess.run(["sh", "-ec", command], cwd=source, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr

    # Away from the clone, so that only what was installed can be found.
    for command in (["kinema", "--help"], ["kubectl-kinema", "--help"], ["gunicorn", "--version"]):
        done = subprocess.run(
            [str(target / "bin" / command[0]), *command[1:]], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
    for package in ("extender", "planner", "simulator"):
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                inside = path.relative_to(ROOT)
                assert list(target.glob(f"lib/python*/site-packages/{inside}")), inside
