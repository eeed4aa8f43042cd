"""Corpora: text chosen, spoken, recorded, listed, mixed and filtered."""
