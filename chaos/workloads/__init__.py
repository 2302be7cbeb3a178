"""What clients do during a run. Each program writes down what it asked and what it was told, and judges nothing."""
