"""The samplers' arithmetic: one file a family, each a plan of what it visits and one step as a pure function."""
