"""How gunicorn serves the extender: `gunicorn -c python:extender.gunicorn_conf`.

One worker, since reservations live in its memory; threads, since several connections of one scheduler and
the probes may come at once.
"""

import os
import sys

from extender.nodes import Cache
from extender.settings import ExtenderSettings, SettingsError

try:
    _settings = ExtenderSettings.from_environment(os.environ)
    # Nothing is started here: the worker watches. But a wrong kubeconfig must end gunicorn before it forks.
    Cache.connect(_settings)
except SettingsError as _error:
    sys.stderr.write(f"kinema extender: {_error}\n")
    sys.exit(2)

wsgi_app = "extender.app:create_app()"
bind = _settings.bind
workers = 1
worker_class = "gthread"
threads = 4
# Longer than the 90 s after which the scheduler's client closes an idle connection: a shorter time makes
# one connection a pod, or a request on a connection that is just being closed.
keepalive = 120
graceful_timeout = 5
# Shared memory: a heartbeat file on a slow or read-only disk can block the worker.
worker_tmp_dir = "/dev/shm"
control_socket_disable = True
