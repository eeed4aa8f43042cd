"""The exercises of the series, a file for each notebook; `tasks.exercise` says what one is."""
