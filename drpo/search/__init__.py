"""Search algorithms over nodes and rewards. Nothing here knows a language model.

`problem.Problem` says what is searched, `strategy.Strategy` decides, `engine.search` runs a level at a time.
"""
