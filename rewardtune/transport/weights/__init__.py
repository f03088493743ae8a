"""Weight stores: what the learner publishes and samplers fetch."""
