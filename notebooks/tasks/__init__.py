"""The exercises of the series, a file for each notebook; `slmlab.notebook.exercises` says what one is."""
