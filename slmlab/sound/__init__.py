"""Sound files, and what is taken from them: mel, pitch, energy."""
