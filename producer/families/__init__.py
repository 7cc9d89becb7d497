"""What is particular to a kind of model on the side of the producer."""
