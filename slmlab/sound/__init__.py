"""Sound files, and what is taken from them: mel, pitch, energy."""

SAMPLE_RATE = 16_000
"""Samples a second of every wave in the lab."""
