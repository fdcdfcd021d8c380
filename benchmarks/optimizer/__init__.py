"""How good and how fast plans are, beside what else one could do: `python -m benchmarks.optimizer`."""
