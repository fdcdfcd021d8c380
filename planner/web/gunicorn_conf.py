"""How gunicorn serves the planner's HTTP face: `gunicorn -c python:planner.web.gunicorn_conf`.

One worker with threads: the reading of the cluster and the counters are the process's own; more replicas are
more pods.
"""

import os
import sys

from planner.configuration import load_settings
from planner.errors import BadInput
from planner.kube.client import KubernetesClient

try:
    _settings = load_settings(os.environ.get("KINEMA_SETTINGS"), os.environ)
    # The worker makes its own: here a wrong kubeconfig is said in one line, there it would be a trace.
    KubernetesClient.connect(_settings.kubeconfig)
except BadInput as _error:
    print(f"kinema web: {_error}", file=sys.stderr)  # noqa: T201
    sys.exit(2)

wsgi_app = "planner.web.app:create_app()"
bind = _settings.web.bind
workers = 1
worker_class = "gthread"
threads = 8
# Longer than the 30 s between two questions of a caller, so that its connection is kept.
keepalive = 75
graceful_timeout = 5
# Shared memory: a heartbeat file on a slow or read-only disk can block the worker.
worker_tmp_dir = "/dev/shm"
control_socket_disable = True
