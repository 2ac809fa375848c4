"""What a run will cost before it is begun: calls, tokens and money, from its plan alone. Nothing is sent.

`counts` knows the search, `sizes` the prompts and replies, `habits` what was measured on other runs;
`forecast` puts them together with prices, limits, and what is recorded already.
"""
