"""Everything that can go wrong, by who can mend it.

KinemaError
├── BadInput              the user mends a file, a setting or an argument; nothing was done
├── BadSettings           the same, for settings
├── Undecided             a check ran out of time
└── Outside               an outside system refused or failed
    ├── KubernetesError   an answer of the API server that is none of the following
    │   ├── Forbidden     403: the ServiceAccount lacks a right
    │   ├── NotFound      404
    │   ├── Conflict      409: the object changed or a precondition failed
    │   ├── Gone          410: the resource version is too old, list again
    │   └── TooManyRequests  429: a disruption budget or the server's load; `retry_after_seconds`
    ├── CloudError        an answer of the cloud that is none of the following
    │   ├── InsufficientCapacity  the zone has no such machine now
    │   ├── QuotaExceeded         the project may not have more
    │   └── InstanceNotFound      the machine is gone already
    ├── UsageError        Prometheus or VPA gave no usable answer
    └── SolverError       the solver crashed, hung, or gave an answer that does not check
        └── WrongPlan     a plan was found, and it fails the independent check
"""

from __future__ import annotations


class KinemaError(Exception):
    """The root of all errors that Kinema raises on purpose; its text is one line for a person."""


class BadInput(KinemaError):
    """A file, object, field or argument is wrong; the text says what would be right. Exit code 2."""


class BadSettings(BadInput):
    """A setting is wrong. Exit code 2."""


class Undecided(KinemaError):
    """A check was still open at its time limit. Exit code 3."""


class Outside(KinemaError):
    """An outside system refused or failed while running. Exit code 1."""


class KubernetesError(Outside):
    """The API server gave an answer that cannot be used, or none."""


class Forbidden(KubernetesError):
    """403: the identity lacks a right; the text names verb and resource."""


class NotFound(KubernetesError):
    """404: the object does not exist."""


class Conflict(KubernetesError):
    """409: the object exists already, changed meanwhile, or a precondition failed."""


class Gone(KubernetesError):
    """410: the resource version is too old; list again."""


class TooManyRequests(KubernetesError):
    """429: a disruption budget forbids the eviction, or the server is overloaded."""

    def __init__(self, message: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class CloudError(Outside):
    """The cloud gave an answer that cannot be used, or none."""


class InsufficientCapacity(CloudError):
    """The zone is out of this machine type."""


class QuotaExceeded(CloudError):
    """The project's quota does not allow the machine."""


class InstanceNotFound(CloudError):
    """The machine does not exist (any more)."""


class UsageError(Outside):
    """Usage could not be read."""


class SolverError(Outside):
    """There is no plan: the solver crashed, hung, or its answer failed the check."""


class WrongPlan(SolverError):
    """A plan was found, and it fails the independent check or cannot be carried out in stages."""
