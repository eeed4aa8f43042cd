"""People as judges: the page, votes that are never lost, ranking, export."""
