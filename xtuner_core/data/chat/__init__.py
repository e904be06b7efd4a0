"""Conversations: the chat template that renders them, and the tokens of them that are trained on."""
