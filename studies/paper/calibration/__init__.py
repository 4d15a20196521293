"""Are probabilities right? Noise that is learned, against temperature scaling and what else makes them so."""
