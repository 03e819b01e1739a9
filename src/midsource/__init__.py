"""midsource: self-hosted bulk email in two halves, with every recipient accounted for."""

__version__ = "0.1.0"
