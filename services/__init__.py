"""The long-lived, distributed parts: data, tracking, training."""
