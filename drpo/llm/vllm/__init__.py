"""vLLM servers: how one is started, watched, ended, and asked what only it knows."""
