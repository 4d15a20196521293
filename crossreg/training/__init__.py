"""The training loop and what goes with it: checkpoints, the compute ledger, diagnoses, when to stop."""
