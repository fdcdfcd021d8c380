"""Opens the cloud and the catalogue that the settings name; a second vendor is one folder and one entry here."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from planner import ports
from planner.cloud.tables import catalogue, read_machines, read_pools
from planner.errors import BadSettings
from planner.model.cluster import Snapshot
from planner.model.machines import Catalogue
from planner.settings import CloudSettings

_CONTROLLERS = {"gcp": ("planner.cloud.gcp.controller", ("google", "grpc", "requests"))}
"""By provider: the module with `open_controller(settings)`, and the packages that its extra installs.

The module is imported only when it is asked for: Google's clients take two seconds to load.
"""


def open_cloud(settings: CloudSettings) -> ports.Cloud | None:
    """Return the controller of the settings' provider; None for "none", which only plans.

    Raises:
        BadSettings: the provider is unknown, its client libraries are not installed, or it takes other settings.
    """
    if settings.provider == "none":
        return None
    if settings.provider not in _CONTROLLERS:
        known = ", ".join([*_CONTROLLERS, "none"])
        raise BadSettings(f"cloud.provider must be one of {known}, not {settings.provider!r}")
    module_name, packages = _CONTROLLERS[settings.provider]
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in packages:
            raise
        extra = settings.provider
        raise BadSettings(
            f"cloud.provider is {extra}, but {error.name} is not installed: pip install 'kinema[{extra}]'"
        ) from error
    cloud: ports.Cloud = module.open_controller(settings)
    return cloud


def open_catalogue(
    settings: CloudSettings, cloud: ports.Cloud | None, pools: str | None = None
) -> Callable[[Snapshot], Catalogue]:
    """Return what says for a snapshot what can be bought: the cloud, or without one the settings' table of machines.

    `pools` is the path of a file of node pools that bound what the table sells; a cloud knows its own. The files
    are read now, so that a wrong one is told before anything begins.

    Raises:
        BadSettings: there is neither a cloud nor a table.
        BadInput: the table or the pools cannot be read, or a value in them is wrong.
    """
    if cloud is not None:
        return lambda _: cloud.catalogue()
    if not settings.machines:
        raise BadSettings(
            "cloud.machines must be a CSV file of machine types where cloud.provider is none, not empty; "
            "or set cloud.provider to gcp, with cloud.project, cloud.location, cloud.cluster and cloud.pools"
        )
    machines = read_machines(settings.machines)
    given = read_pools(pools, machines) if pools else None
    return lambda snapshot: catalogue(machines, given, snapshot)
