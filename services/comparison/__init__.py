"""What runs the methods of a comparison: who they are, how they share a cluster, what is recorded of them."""
