"""What tests of the optimizer share: they run on both solvers where they ask for one."""

import pytest


@pytest.fixture(params=["HIGHS", "GLPK_MI"])
def solver(request: pytest.FixtureRequest) -> str:
    """Each solver that is installed with the project."""
    return str(request.param)
