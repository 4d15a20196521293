"""Every estimator against finite differences, and what each costs."""
