"""Weight decay and noise learned together, against a grid of both."""
