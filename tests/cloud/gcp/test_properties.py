"""What holds after any order of boots and deletions, repeated ones and those of a stockout included."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from planner.cloud.gcp.controller import GoogleCloud
from planner.errors import CloudError
from tests.cloud.gcp.conftest import BOOT_SECONDS, DELETE_SECONDS, Hand
from tests.googlecloud.fake import FakeGoogleCloud, FakePool

ZONE, MACHINE_TYPE = "us-central1-a", "e2-standard-4"
NAMES = ("m-1", "m-2", "m-3")

ACTS = st.tuples(
    st.sampled_from(["boot", "delete", "stock out", "restock"]),
    st.sets(st.sampled_from(NAMES), min_size=1),
    # Soon enough that nothing is finished, late enough that it is, or beyond the memory of request ids.
    st.sampled_from([0.0, BOOT_SECONDS + DELETE_SECONDS, 3700.0]),
)


@settings(max_examples=40)
@given(st.lists(ACTS, max_size=8))
def test_the_target_is_what_was_asked_for_and_every_request_is_honoured_or_refused(
    acts: list[tuple[str, set[str], float]],
) -> None:
    clock = Hand()
    with FakeGoogleCloud([FakePool("general", MACHINE_TYPE, [ZONE])], BOOT_SECONDS, DELETE_SECONDS, clock) as google:
        cloud = GoogleCloud(google.settings())
        for act, names, seconds in acts:
            _perform(act, cloud, google, names)
            clock.move(seconds)
            coming_or_here = [i for i in cloud.instances() if i.state != "deleting"]
            assert google.target_size("general", ZONE) == len(coming_or_here)
        cloud.close()


def _perform(act: str, cloud: GoogleCloud, google: FakeGoogleCloud, names: set[str]) -> None:
    if act == "stock out":
        google.stock_out(ZONE, MACHINE_TYPE)
    elif act == "restock":
        google.restock(ZONE, MACHINE_TYPE)
    elif act == "boot":
        before = {i.name for i in cloud.instances()}
        try:
            cloud.boot("general", ZONE, sorted(names))
        except CloudError:
            assert {i.name for i in cloud.instances()} == before, "a refused boot creates nothing"
        else:
            assert names <= {i.name for i in cloud.instances()}
    else:
        cloud.delete("general", ZONE, sorted(names))
        assert not names & {i.name for i in cloud.instances() if i.state != "deleting"}
