"""What a run will cost before it is begun: calls, tokens and money, from its plan alone. Nothing is sent.

`counts` knows the search, `sizes` the prompts and replies (as `texts` counts them), `habits`, `judge_habits`
and `rewriting_habits` what was measured on other runs; `forecast` puts them together with prices, limits, and
what is recorded already, in the terms of `roles`. Where each request still to come is known, as in
measurements, `pending` adds them up.
"""
