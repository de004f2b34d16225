"""Teaching: labs, predictions, checkpoints, hints, progress, and the course map."""
