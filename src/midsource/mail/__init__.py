"""Content to bytes, purely: no clock, no randomness, no I/O.

content     what an author writes, and what can be wrong with it
checks      what an operator is told about it before anything leaves
shapes      which messages must be tried before anything leaves
skeleton    a delivery's message compiled once, rendered for each recipient
dkim        signatures
template, grammar, sandbox, filters      the template language
headers, quoted                          wire forms
"""
