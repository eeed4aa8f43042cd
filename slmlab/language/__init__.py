"""Letters, words and texts of a language."""
