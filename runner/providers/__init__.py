"""What generates: one file or package per provider. No other module imports an SDK or a model library."""
