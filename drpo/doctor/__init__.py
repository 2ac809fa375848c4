"""What keeps a run from going well, found before it begins: one small check each, none hiding another."""
