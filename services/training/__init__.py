"""Training on Ray: configuration, placement, and one function that does it all."""
