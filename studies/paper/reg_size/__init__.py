"""How small the regularization split may be: what is learned from it, and how far that holds on data it never saw."""
