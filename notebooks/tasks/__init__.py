"""The exercises of the series, a file for each notebook; what an exercise is, is in `slmlab.exercises`."""
