"""What a run saves so that it can go on: one folder a checkpoint, complete or not there."""
