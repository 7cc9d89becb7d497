"""What is run by hand, and not installed."""
