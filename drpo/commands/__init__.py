"""One module per command. Each has `command`, a click command; what they do lives below `drpo.api`."""
