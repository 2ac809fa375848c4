"""The parts of the simulated models: how they read, respond, judge, choose aspects and improve prompts.

Four models that know each other only through text. `queries`, `prompts` and `responses` read what stands in
a request; `responding`, `judging`, `selecting`, `editing` and `mending` answer it; `truth` says how good a
prompt is without noise. Nothing here remembers anything between two requests.
"""
