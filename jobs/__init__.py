"""What a person submits: one module a job, and the `crossreg` command."""
