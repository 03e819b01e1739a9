"""Values and state tables of the domain; standard library only."""
