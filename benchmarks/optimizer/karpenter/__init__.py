"""Karpenter's own scheduler on the pods, prices and machines of the benchmark."""
