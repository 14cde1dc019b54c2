"""Metrics, intervals, tests and the verdict: from probabilities to figures, without models or images."""
