"""Writes a tiny random Llama with a byte-level BPE trained on the spot, as a Hugging Face directory."""

import json
import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CORPUS = [
    "Goal Goal Path Path Parallel Outline Conclusion Think /Goal /Path the the and and one two three",
    "Let's think in parallel. Find the sum of one and two, then the sum of three and four.",
] * 20
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_base(directory: Path, *, tied: bool = True, template: str | None = TEMPLATE) -> Path:
    """2 layers, hidden 64, 300 rows for 290 tokens; ``<|im_start|>`` is id 0, ``<|im_end|>`` id 1."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>")
    fast.chat_template = template
    fast.save_pretrained(directory)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=1,
        # Large enough that what a token attends to shows in its logits.
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


def edit_json(path: Path, **changes: object) -> None:
    """Set keys of the JSON object in ``path``."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def copy_model(directory: Path, target: Path) -> Path:
    """Copy a model's directory, to be changed by a test."""
    return shutil.copytree(directory, target)
