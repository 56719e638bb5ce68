"""Text as ordinary text tokens only."""

import json

from tokenizers import Tokenizer


def plain_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """``tokenizer`` without any of its added tokens: tags and special tokens in a text are spelled out."""
    parts = json.loads(tokenizer.to_str())
    return Tokenizer.from_str(json.dumps({**parts, "added_tokens": [], "post_processor": None}))
