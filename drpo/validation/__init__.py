"""Whether a found prompt is better than the initial one, on queries that the search never saw.

`race.race` measures in rounds, `decision.decide` turns scores into the verdict, `race.floor` is for
safety.
"""
