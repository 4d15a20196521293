"""Ridge regression, against its closed form."""
