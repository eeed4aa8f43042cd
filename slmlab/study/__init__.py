"""The studies: what is run, what it shows, how sure we are."""
