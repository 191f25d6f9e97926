"""How a request is sent: attempts, pauses, limits, budget, concurrency."""
