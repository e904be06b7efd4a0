"""Algorithm sft: supervised fine-tuning on conversations, texts and token ids."""
