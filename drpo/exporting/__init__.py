"""An alignment written for other tools: each target says what it can hold and refuses what it cannot."""
