"""gunicorn with a wall clock that is off by some seconds.

`python -m tests.controlplane.fidelity.skewed SECONDS [ARGUMENTS OF GUNICORN]`
"""

from __future__ import annotations

import sys
import time


def main() -> None:
    """Set the clock off before anything reads it, then be gunicorn."""
    offset = float(sys.argv.pop(1))
    true_time = time.time
    time.time = lambda: true_time() + offset

    from gunicorn.app.wsgiapp import run

    run(prog="gunicorn")


if __name__ == "__main__":
    main()
