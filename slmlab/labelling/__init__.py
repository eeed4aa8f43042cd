"""People as judges: sounds and names go in, events and tables come out. Nothing here knows of models."""
