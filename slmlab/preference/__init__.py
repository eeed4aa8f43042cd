"""What is better is learned from pairs: losses, tables of pairs, tuning, and the paper's two alignments."""
