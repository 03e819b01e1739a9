"""Pure decisions over the model: (state, rules, now) in, decision out."""
