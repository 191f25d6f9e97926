"""How a request leaves: attempts, pauses, limits, budget, concurrency."""
