"""The pages of the console: for each family its routes, and the queries they read with."""
