"""A fake Google whose time the tests move, and controllers that are closed behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from planner.cloud.gcp.controller import GoogleCloud, Patience
from planner.settings import CloudSettings
from tests.googlecloud.fake import FakeGoogleCloud, FakePool

ZONES = ("us-central1-a", "us-central1-b", "us-central1-c")
BOOT_SECONDS = 60.0
DELETE_SECONDS = 30.0


class Hand:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def move(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def google(clock: Hand) -> Iterator[FakeGoogleCloud]:
    """Pool "general": e2-standard-4 in three zones, two of its machines run; pool "other": not Kinema's."""
    pools = [
        FakePool("general", "e2-standard-4", ZONES, {"us-central1-a": ["old-1", "old-2"]}),
        FakePool("other", "n2-standard-4", ZONES[:1], {"us-central1-a": ["foreign"]}),
    ]
    with FakeGoogleCloud(pools, BOOT_SECONDS, DELETE_SECONDS, clock) as fake:
        yield fake


Open = Callable[[CloudSettings], GoogleCloud]


@pytest.fixture
def open_controller() -> Iterator[Open]:
    """Open controllers of these settings that give up soon."""
    opened: list[GoogleCloud] = []

    def open_one(settings: CloudSettings) -> GoogleCloud:
        opened.append(GoogleCloud(settings, Patience(call_seconds=10.0, retry_seconds=1.0)))
        return opened[-1]

    yield open_one
    for controller in opened:
        controller.close()


@pytest.fixture
def cloud(google: FakeGoogleCloud, open_controller: Open) -> GoogleCloud:
    """The controller of pool "general"."""
    return open_controller(google.settings(["general"]))
