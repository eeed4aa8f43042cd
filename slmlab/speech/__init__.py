"""Text to wave: sampling, the chain, its score."""
