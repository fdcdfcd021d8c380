"""Finds the cheapest set of nodes that runs everything, and proves how good it is."""

from planner.optimizer.planning import optimize

__all__ = ["optimize"]
