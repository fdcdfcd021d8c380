"""Translates what Google's clients raise, and what an operation or a machine reports, into Kinema's errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import requests
from google.api_core import exceptions as google_exceptions
from google.auth import exceptions as auth_exceptions
from google.protobuf import json_format

from planner.errors import CloudError, InstanceNotFound, InsufficientCapacity, QuotaExceeded

_RATE = ("RATELIMIT", "RATE_LIMIT", "CONCURRENT_OPERATIONS")
_CAPACITY = ("RESOURCE_POOL_EXHAUSTED", "INSUFFICIENT_CAPACITY", "INSUFFICIENTCAPACITY")


def kind_of(code: str) -> type[CloudError]:
    """Return the class of error for a code of the Compute Engine API, such as ZONE_RESOURCE_POOL_EXHAUSTED.

    A limit on the rate of calls (rateLimitExceeded, CONCURRENT_OPERATIONS_QUOTA_EXCEEDED) is no quota of machines: it
    passes by itself. Source: cluster-autoscaler, cloudprovider/gce/autoscaling_gce_client.go.
    """
    text = code.upper()
    if any(mark in text for mark in _RATE):
        return CloudError
    if any(mark in text for mark in _CAPACITY):
        return InsufficientCapacity
    return QuotaExceeded if "QUOTA" in text else CloudError


@contextmanager
def translated(action: str) -> Iterator[None]:
    """Turn whatever Google's clients raise inside into one line of `CloudError` that names the action."""
    try:
        yield
    except google_exceptions.GoogleAPICallError as error:
        raise _from_answer(action, error) from error
    except (
        google_exceptions.GoogleAPIError,
        auth_exceptions.GoogleAuthError,
        requests.RequestException,
        json_format.ParseError,
    ) as error:
        raise CloudError(f"cannot {action}: {_one_line(error)}") from error


def _from_answer(action: str, error: google_exceptions.GoogleAPICallError) -> CloudError:
    details = [detail for detail in error.errors if isinstance(detail, Mapping)]
    reason = str(details[0].get("reason", "")) if details else ""
    message = _one_line(details[0].get("message") or error.message if details else error.message)
    status = int(error.code) if error.code is not None else 0
    text = f"cannot {action}: {' '.join(part for part in (str(status), reason) if part)}: {message}"
    if status == 404 and "/instances/" in message:
        return InstanceNotFound(text)
    # 429 is always about the rate of calls, also where its text speaks of a quota.
    return CloudError(text) if status == 429 else kind_of(reason)(text)


def _one_line(text: object) -> str:
    return " ".join(str(text).split()) or type(text).__name__
