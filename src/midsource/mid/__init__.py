"""The mid-sourcing role: reception, ledger, dispatch, sending, feed."""
