"""One file per verb of the command line, with its `command`; and what verbs share."""
