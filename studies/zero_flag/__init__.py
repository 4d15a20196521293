"""The zero-flag run, against a tuned search at ten times its compute."""
