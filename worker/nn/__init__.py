"""Layers and networks that every family of models uses. Knows no family."""
