"""How gunicorn serves the extender: `gunicorn -c python:extender.gunicorn_conf`.

One worker, since reservations live in its memory; threads, since several connections of one scheduler and
the probes may come at once.
"""

import gc
import os
import ssl
import sys

# What the imports make stays for good: looking for garbage in it again and again takes a fifth of their time.
gc.disable()

# Imported before the fork, so that a worker, the next one after SIGHUP too, listens half a second sooner.
import extender.app  # noqa: E402, F401
from extender.nodes import Cache  # noqa: E402
from extender.settings import ExtenderSettings, SettingsError  # noqa: E402
from extender.tls import Contexts  # noqa: E402

try:
    _settings = ExtenderSettings.from_environment(os.environ)
    # Nothing is started here: the worker watches. But a wrong kubeconfig must end gunicorn before it forks.
    Cache.connect(_settings)
    _contexts = Contexts(_settings) if _settings.tls_certificate else None
except SettingsError as _error:
    sys.stderr.write(f"kinema extender: {_error}\n")
    sys.exit(2)

wsgi_app = "extender.app:create_app()"
bind = _settings.bind
workers = 1
worker_class = "extender.worker.DrainingWorker"
threads = 8
# Longer than the 90 s after which the scheduler's client closes an idle connection: a shorter time makes
# one connection a pod, or a request on a connection that is just being closed.
keepalive = 120
graceful_timeout = 5
# Shared memory: a heartbeat file on a slow or read-only disk can block the worker.
worker_tmp_dir = "/dev/shm"
control_socket_disable = True

if _contexts is not None:
    certfile, keyfile = _settings.tls_certificate, _settings.tls_key

    def ssl_context(_config: object, _default: object) -> ssl.SSLContext:
        """Return the context of the next connection; gunicorn asks for each."""
        assert _contexts is not None  # the branch that defines this function
        return _contexts.current()


# No collection of master or worker visits any of the above again.
gc.freeze()
gc.enable()
