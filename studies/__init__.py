"""Problems whose answer is known: how far each gradient estimator gets, in numbers."""
