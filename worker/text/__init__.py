"""From prompts to tokens, weights and embeddings. Knows no family."""
