"""Starting ranks, watching them, ending them: both sides of it, the supervisor's and the rank's."""
