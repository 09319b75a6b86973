"""Which worker gets which shard when: pure decisions, without processes or a clock."""
