"""Upkeep of an instance's database: measuring, the actions and their record, daily samples. Any role, below the doctor."""
