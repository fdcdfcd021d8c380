"""Carries a plan out: what is next follows from plan and snapshot alone."""

from planner.rescheduler.disruption import rules_of
from planner.rescheduler.distance import divergence, unsteered
from planner.rescheduler.rehearsal import Ending
from planner.rescheduler.staging import staged
from planner.rescheduler.standing import left_standing, mended
from planner.rescheduler.steps import CARRIED_OUT, next_steps

__all__ = [
    "CARRIED_OUT",
    "Ending",
    "divergence",
    "left_standing",
    "mended",
    "next_steps",
    "rules_of",
    "staged",
    "unsteered",
]
