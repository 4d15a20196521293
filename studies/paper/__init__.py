"""The deep experiments of the source paper (arXiv 2506.19755), run again."""
