"""What somebody adds: a regularizer, a stopping rule and a baseline, a file each and a line in a registry."""
