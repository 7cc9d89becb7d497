"""The pocket model: its data, its training, its judgement."""
