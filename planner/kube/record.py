"""What the cluster remembers of a plan: the ConfigMap `kinema-plan`, so that a restarted planner carries on."""

from __future__ import annotations

import base64
import gzip
import zlib
from collections.abc import Mapping
from typing import get_args

import msgspec

from planner import ports
from planner.errors import BadInput, KubernetesError, NotFound
from planner.model.plan import Mending, Phase, PlanRecord
from planner.model.plan_json import decode_plan, encode_plan

NAME = "kinema-plan"

_PLAN = "plan.json.gz"
_BEGAN_AT, _MADE_UNTIL = "mendingBeganAt", "mendedUntil"
# The API server refuses objects above about 1.5 MB; a plan that unpacks to far more was not written by Kinema.
_LARGEST_PLAN_BYTES = 512 * 1024**2


class _ConfigMap(msgspec.Struct, rename="camel"):
    data: dict[str, str] | None = None
    binary_data: dict[str, str] | None = None


def encode_record(record: PlanRecord, namespace: str) -> dict[str, object]:
    """Return the ConfigMap that stores the record; equal records give equal bytes."""
    packed = gzip.compress(encode_plan(record.plan), mtime=0)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "namespace": namespace},
        "data": {
            "iteration": record.plan.iteration,
            "phase": record.phase,
            "acceptedAt": repr(record.accepted_at),
            "mode": record.mode,
            "reason": record.reason,
            **_mending_fields(record.mending),
        },
        "binaryData": {_PLAN: base64.b64encode(packed).decode()},
    }


def decode_record(raw: bytes) -> PlanRecord:
    """Read the ConfigMap.

    Raises:
        KubernetesError: it is not what `encode_record` writes; nothing is done on half a plan.
    """
    try:
        found = msgspec.json.decode(raw, type=_ConfigMap)
        fields = found.data or {}
        phases = {phase: phase for phase in get_args(Phase)}
        phase: Phase = phases[fields["phase"]]
        packed = base64.b64decode((found.binary_data or {})[_PLAN], validate=True)
        plan = decode_plan(_unpack(packed), f"the ConfigMap {NAME}")
        return PlanRecord(
            plan=plan,
            phase=phase,
            accepted_at=float(fields["acceptedAt"]),
            mode=fields.get("mode", "apply"),
            reason=fields.get("reason", ""),
            mending=_mending(fields),
        )
    except KeyError as error:
        why = f"the key or value {error} is not what Kinema writes"
    except (ValueError, zlib.error, EOFError, OSError, msgspec.MsgspecError, BadInput) as error:
        why = str(error)
    raise KubernetesError(
        f"the ConfigMap {NAME} holds no plan that can be read: {why}; delete it once no node carries a "
        "kinema.io/expiring label"
    )


def read_record(kubernetes: ports.Kubernetes, namespace: str) -> PlanRecord | None:
    """Return what the cluster remembers, None where there is nothing yet.

    Raises:
        KubernetesError: it cannot be read.
    """
    try:
        raw = kubernetes.get(ports.CONFIGMAPS, namespace, NAME)
    except NotFound:
        return None
    return decode_record(raw)


def _mending_fields(mending: Mending | None) -> dict[str, str]:
    if mending is None:
        return {}
    return {_BEGAN_AT: repr(mending.began_at), _MADE_UNTIL: repr(mending.made_until)}


def _mending(fields: Mapping[str, str]) -> Mending | None:
    return Mending(float(fields[_BEGAN_AT]), float(fields[_MADE_UNTIL])) if _BEGAN_AT in fields else None


def _unpack(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    plan = unpacker.decompress(packed, _LARGEST_PLAN_BYTES)
    if not unpacker.eof:
        raise ValueError(f"the plan is cut off, or larger than {_LARGEST_PLAN_BYTES} bytes")
    return plan
