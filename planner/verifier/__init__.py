"""An independent check of a plan and of its lower bound, in integer arithmetic and from the inputs alone."""

from planner.verifier.bound import Verdict, verify
from planner.verifier.placement import Examination, check_placement

__all__ = ["Examination", "Verdict", "check_placement", "verify"]
