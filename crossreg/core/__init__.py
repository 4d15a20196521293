"""What everything else stands on: errors, seeds, processes, metric keys."""
