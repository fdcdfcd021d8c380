"""How the control plane is found or built, and what happens where neither is possible."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.controlplane import build
from tests.controlplane.fixtures import require_binaries

READY = ("etcd", "kube-apiserver", "kubectl")


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with an empty cache and without Go; returns the cache."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("KINEMA_CACHE", str(cache))
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return cache


def test_without_go_the_tests_are_skipped_with_the_reason(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs Go"):
        require_binaries()


def test_without_go_the_tests_fail_in_continuous_integration(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="needs Go"):
        require_binaries()


def test_without_go_the_command_says_so_and_fails(bare_machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main() == 1
    assert "needs Go" in capsys.readouterr().err


def test_the_cache_is_outside_of_the_clone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KINEMA_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert build.cache_folder() == tmp_path / "kinema"
    monkeypatch.setenv("KINEMA_CACHE", str(tmp_path / "own"))
    assert build.cache_folder() == tmp_path / "own"


@pytest.mark.controlplane
def test_ready_assets_are_used_and_the_rest_is_built(
    control_plane_binaries: build.Binaries, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assets = tmp_path / "assets"
    assets.mkdir()
    for program in READY:
        (assets / program).write_bytes(b"ready")
    built: list[str] = []
    stages = control_plane_binaries.folder / "stages"

    def compile_nothing(module: build.GoModule, packages: dict[str, str], target: Path) -> None:
        for program in packages:
            built.append(program)
            (target / program).write_bytes(b"built")

    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    monkeypatch.setenv("KINEMA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "_build_module", compile_nothing)
    monkeypatch.setattr(build, "_copy_stages", lambda target: (target / "stages").symlink_to(stages))
    binaries = build.build()
    assert binaries.folder != control_plane_binaries.folder
    assert {program for program in build.PROGRAMS if binaries.path(program).read_bytes() == b"ready"} == set(READY)
    assert sorted(built) == ["filtercheck", "kube-controller-manager", "kube-scheduler", "kwok"]
    # The second call finds everything; an asset that has gone makes the folder incomplete.
    assert build.build() == build.find() == binaries
    assert len(built) == 4
    (assets / "etcd").unlink()
    assert not binaries.complete()


@pytest.mark.controlplane
def test_a_build_that_fails_leaves_nothing_that_looks_complete(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(module: build.GoModule, packages: dict[str, str], target: Path) -> None:
        (target / module.folder).write_bytes(b"half")
        raise build.BuildError("disk full")

    monkeypatch.setenv("KINEMA_CACHE", str(tmp_path))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setattr(build, "unavailable", lambda: None)
    monkeypatch.setattr(build, "_build_module", fail)
    with pytest.raises(build.BuildError, match="disk full"):
        build.build()
    assert build.find() is None
