"""A stream of tasks through one network: whether what is learned follows, and whether that costs what was known."""
