"""Using an alignment: generate, chat, serve, export, all through the one renderer."""
