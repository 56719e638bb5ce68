"""Who may use the server, how much of it, and when: keys, their limits, and the queue before the engine."""
