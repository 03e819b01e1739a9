"""The lab: years of logs and hours of faults, for drills, benchmarks and proofs. Never against a mid that mails the real world."""
