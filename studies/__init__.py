"""Studies: problems whose best regularization is known, to measure how close each gradient estimator gets to it.

In all of them `theta` are the weights, trained on the training split, and `rho` what regularizes them, learned on the
held-out "reg" split. A test split plays no part in either. Every study is a folder: `problem` makes the data and runs
the training, `study` says which cases there are and what came of them, `figure` draws it.
"""
