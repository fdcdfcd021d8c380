"""Opens the cloud that the settings name; a second vendor is one folder and one entry here."""

from __future__ import annotations

from importlib import import_module

from planner import ports
from planner.errors import BadSettings
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
